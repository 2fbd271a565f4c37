//! Fresh P-256 keys. To hold one ready for signing costs another multiplication on the curve, so that only who signs with it does.

use ring::{
    pkcs8::Document,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};

use crate::{Error, pem};

/// `04 x y`, with which the PKCS #8 document of a key ends.
const POINT_BYTES: usize = 65;

/// A key in PKCS #8, with its public part.
pub(crate) struct NewKey(Document);

impl NewKey {
    pub fn generate() -> Result<NewKey, Error> {
        // The document is the same for every way of signing with P-256.
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::Key("the system gives no randomness".into()))?;
        Ok(NewKey(document))
    }

    /// The public key, uncompressed.
    pub fn point(&self) -> &[u8] {
        let document = self.0.as_ref();
        &document[document.len() - POINT_BYTES..]
    }

    pub fn pem(&self) -> String {
        pem::encode("PRIVATE KEY", self.0.as_ref())
    }

    pub fn pair(&self) -> Result<EcdsaKeyPair, Error> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, self.0.as_ref(), &SystemRandom::new())
            .map_err(|error| Error::unreadable("a key that was just made", error))
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair;

    use super::*;

    #[test]
    fn a_key_ends_with_its_public_part() {
        let key = NewKey::generate().unwrap();

        assert_eq!(key.point(), key.pair().unwrap().public_key().as_ref());
        assert_eq!(key.point()[0], 4);
    }
}
