//! Tokens of users, simple and signed ones; the signed ones side by side with Debian's etcd.
#![allow(clippy::disallowed_methods, reason = "a test reads files by hand")]

mod served;
mod server;
mod wire;

use std::path::{Path, PathBuf};

use etcd::{
    server::{AuthToken, MemberOptions},
    wire::etcdserverpb::{
        AuthEnableRequest, AuthEnableResponse, AuthUserAddRequest, AuthUserAddResponse, AuthUserGrantRoleRequest,
        AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse, AuthenticateRequest,
        AuthenticateResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    },
};
use served::Served;
use server::Etcd;
use tonic::{Code, Status};
use wire::Client;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

fn flag(method: &str, private: &str, public: &str) -> String {
    let mut flag = format!("jwt,sign-method={method},ttl=10m");
    for (option, name) in [("priv-key", private), ("pub-key", public)] {
        if !name.is_empty() {
            flag += &format!(",{option}={}", file(name).display());
        }
    }
    flag
}

fn token_kind(flag: &str) -> Result<AuthToken, String> {
    AuthToken::of_flag(flag, |path| std::fs::read(path)).map_err(|error| error.to_string())
}

async fn served(flag: &str) -> Served {
    let options = MemberOptions {
        auth_token: token_kind(flag).expect("a good flag"),
        ..MemberOptions::default()
    };
    Served::with(options, served::limits()).await
}

/// Users and their right, the same on each server; the last thing is that they matter.
async fn set_up(client: &mut Client) {
    for name in ["root", "somebody"] {
        user_add(client, name).await.unwrap();
    }
    let grant = AuthUserGrantRoleRequest {
        user: "root".into(),
        role: "root".into(),
    };
    let _: AuthUserGrantRoleResponse = client.call("/etcdserverpb.Auth/UserGrantRole", grant).await.unwrap();
    let enable = AuthEnableRequest {};
    let _: AuthEnableResponse = client.call("/etcdserverpb.Auth/AuthEnable", enable).await.unwrap();
}

async fn user_add(client: &mut Client, name: &str) -> Result<AuthUserAddResponse, Status> {
    let add = AuthUserAddRequest {
        name: name.into(),
        password: "secret".into(),
        ..AuthUserAddRequest::default()
    };
    client.call("/etcdserverpb.Auth/UserAdd", add).await
}

async fn token(client: &mut Client, name: &str) -> Result<String, Status> {
    let authenticate = AuthenticateRequest {
        name: name.into(),
        password: "secret".into(),
    };
    let answer: AuthenticateResponse = client.call("/etcdserverpb.Auth/Authenticate", authenticate).await?;
    Ok(answer.token)
}

async fn put(client: &mut Client) -> Result<PutResponse, Status> {
    let put = PutRequest {
        key: "k".into(),
        ..PutRequest::default()
    };
    client.call("/etcdserverpb.KV/Put", put).await
}

fn told(status: Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

fn old() -> (Code, String) {
    (
        Code::InvalidArgument,
        "etcdserver: revision of auth store is old".to_owned(),
    )
}

fn invalid() -> (Code, String) {
    (Code::Unauthenticated, "etcdserver: invalid auth token".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_token_is_taken_until_users_change() {
    let served = served(&flag("ES384", "ec384.pem", "")).await;
    let mut client = Client::connect(&served.endpoint).await;
    set_up(&mut client).await;

    let root = token(&mut client, "root").await.unwrap();
    client.token = Some(root.clone());
    put(&mut client).await.unwrap();
    let (signed, _) = root.rsplit_once('.').unwrap();
    client.token = Some(format!("{signed}.AAAA"));
    let forged = told(put(&mut client).await.unwrap_err());
    client.token = Some(root);
    user_add(&mut client, "another").await.unwrap();
    let late = told(put(&mut client).await.unwrap_err());
    client.token = Some(token(&mut client, "root").await.unwrap());
    put(&mut client).await.unwrap();
    client.token = Some(token(&mut client, "somebody").await.unwrap());
    let other = told(put(&mut client).await.unwrap_err());

    assert_eq!(forged, invalid());
    assert_eq!(late, old());
    assert_eq!(other, (Code::PermissionDenied, "etcdserver: permission denied".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_takes_the_tokens_of_another_that_has_its_key() {
    for (method, private, public) in [
        ("RS256", "rsa.pem", "rsa.pub.pem"),
        ("PS512", "rsa.pem", "rsa.pub.pem"),
        ("ES256", "ec.pem", "ec.pub.pem"),
        ("HS256", "ec.pem", ""),
    ] {
        let flag = flag(method, private, public);
        let Some(etcd) = Etcd::start_with(&["--auth-token", &flag]) else {
            return;
        };
        let served = served(&flag).await;
        let mut ours = Client::connect(&served.endpoint).await;
        let mut theirs = Client::connect(&etcd.endpoint).await;
        for client in [&mut ours, &mut theirs] {
            set_up(client).await;
        }

        let of_ours = token(&mut ours, "root").await.unwrap();
        let of_theirs = token(&mut theirs, "root").await.unwrap();
        ours.token = Some(of_theirs);
        theirs.token = Some(of_ours);

        put(&mut ours)
            .await
            .unwrap_or_else(|status| panic!("{method}, ours: {status}"));
        put(&mut theirs)
            .await
            .unwrap_or_else(|status| panic!("{method}, theirs: {status}"));
        for client in [&mut ours, &mut theirs] {
            user_add(client, "another").await.unwrap();
            assert_eq!(told(put(client).await.unwrap_err()), old(), "{method}");
            // Only who may change users is not asked how old the token is.
            let list: AuthUserListResponse = client
                .call("/etcdserverpb.Auth/UserList", AuthUserListRequest {})
                .await
                .unwrap();
            assert_eq!(list.users, ["another", "root", "somebody"]);
            client.token = Some("no.token.atall".into());
            assert_eq!(told(put(client).await.unwrap_err()), invalid(), "{method}");
            client.token = None;
            let nobody = told(put(client).await.unwrap_err());
            assert_eq!(nobody, (Code::InvalidArgument, "etcdserver: user name is empty".into()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_only_the_public_key_takes_tokens_and_gives_none() {
    let signs = served(&flag("EdDSA", "ed25519.pem", "")).await;
    let mut client = Client::connect(&signs.endpoint).await;
    set_up(&mut client).await;
    token(&mut client, "root").await.unwrap();

    let verifies = served(&flag("ES256", "", "ec.pub.pem")).await;
    let mut client = Client::connect(&verifies.endpoint).await;
    set_up(&mut client).await;
    let refused = token(&mut client, "root").await.unwrap_err();

    assert_eq!(refused.message(), "auth: token signing attempted with verify-only key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simple_token_lasts_while_users_change_and_ends_with_its_user() {
    let served = served("simple").await;
    let mut client = Client::connect(&served.endpoint).await;
    set_up(&mut client).await;
    client.token = Some(token(&mut client, "root").await.unwrap());

    user_add(&mut client, "another").await.unwrap();
    put(&mut client).await.unwrap();
    let range = RangeRequest {
        key: "k".into(),
        ..RangeRequest::default()
    };
    let found: RangeResponse = client.call("/etcdserverpb.KV/Range", range).await.unwrap();

    assert_eq!(found.count, 1);
}

#[test]
fn flags_that_say_nothing_good_are_refused_in_words() {
    for (flag, why) in [
        ("none".to_owned(), "neither simple nor jwt"),
        ("jwt".to_owned(), "no NAME=VALUE"),
        ("jwt,sign-method=ES512".to_owned(), "ES512"),
        ("jwt,sign-method=none".to_owned(), "none"),
        ("jwt,sign-method=RS256".to_owned(), "missing key data"),
        ("jwt,sign-method=HS256".to_owned(), "missing key data"),
        ("jwt,sign-method=RS256,colour=red".to_owned(), "colour=red"),
        ("jwt,sign-method=RS256,sign-method=RS256".to_owned(), "twice"),
        ("jwt,sign-method=RS256,priv-key=/nowhere".to_owned(), "/nowhere"),
        ("jwt,sign-method=RS256,ttl=soon".to_owned(), "no duration"),
        (flag("ES256", "rsa.pem", ""), "another kind"),
        (flag("RS256", "ec.pem", ""), "another kind"),
        (flag("ES256", "ec384.pem", ""), "can't be used"),
        (flag("ES256", "ec.pem", "rsa.pub.pem"), "don't match"),
        (flag("RS256", "rsa.pem", "ec.pub.pem"), "don't match"),
        (flag("RS256", "rsa.pub.pem", ""), "can't be used"),
    ] {
        let refused = token_kind(&flag).expect_err(&flag);
        assert!(refused.contains(why), "{flag}: {refused}");
    }
}
