//! kubeconfig files: entries added to and taken from what is there, never anything else changed.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{Certified, Error};

/// By what a user proves who they are.
#[derive(Clone, Debug)]
pub enum Credential {
    Certificate(Certified),
    Token(String),
}

/// One context with its cluster and user, all of the same name.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    /// `https://host:port/planes/<id>`
    pub server: String,
    pub authority_pem: String,
    pub credential: Credential,
    pub namespace: Option<String>,
}

/// Whether the entry becomes the file's current context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Current {
    Switch,
    /// Left as it is; a file without one takes the entry.
    Keep,
}

/// The current context of the file at `path`, where it holds all that is needed by itself: no other file, no program.
pub fn read(path: &Path) -> Result<Entry, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })?;
    let unreadable = |why: &str| Error::unreadable("the kubeconfig", why);
    let config: Value = serde_saphyr::from_str(&text).map_err(|error| Error::unreadable("the kubeconfig", error))?;
    let find = |section: &str, field: &str, name: &Value| -> Result<Value, Error> {
        let mut items = config[section].as_array().into_iter().flatten();
        let found = items.find(|item| !name.is_null() && item["name"] == *name);
        found
            .map(|item| item[field].clone())
            .ok_or_else(|| unreadable(&format!("it has no {field} {name}")))
    };
    let decoded = |value: &Value| -> Result<String, Error> {
        let bytes = STANDARD.decode(value.as_str().unwrap_or_default());
        let bytes = bytes.map_err(|error| Error::unreadable("the kubeconfig's data", error))?;
        String::from_utf8(bytes).map_err(|error| Error::unreadable("the kubeconfig's data", error))
    };
    let name = &config["current-context"];
    let context = find("contexts", "context", name)?;
    let cluster = find("clusters", "cluster", &context["cluster"])?;
    let user = find("users", "user", &context["user"])?;
    let credential = if let Some(token) = user["token"].as_str() {
        Credential::Token(token.to_owned())
    } else if user["client-key-data"].is_string() {
        Credential::Certificate(Certified {
            certificate_pem: decoded(&user["client-certificate-data"])?,
            key_pem: decoded(&user["client-key-data"])?,
        })
    } else {
        return Err(unreadable(
            "its user has neither a token nor a certificate with its key in the file",
        ));
    };
    Ok(Entry {
        name: name.as_str().unwrap_or_default().to_owned(),
        server: cluster["server"]
            .as_str()
            .ok_or_else(|| unreadable("its cluster has no server"))?
            .to_owned(),
        authority_pem: decoded(&cluster["certificate-authority-data"])?,
        credential,
        namespace: context["namespace"].as_str().map(str::to_owned),
    })
}

/// A file of its own with one context, which is the current one.
pub fn document(entry: &Entry) -> Result<String, Error> {
    let mut config = json!({"apiVersion": "v1", "kind": "Config", "preferences": {}});
    add(&mut config, entry, Current::Switch);
    to_yaml(&config)
}

/// Adds `entry` to the file at `path` (made if it isn't there), replacing what has its name.
pub fn merge(path: &Path, entry: &Entry, current: Current) -> Result<(), Error> {
    change(path, |config| add(config, entry, current))
}

/// Takes the context `name`, and the cluster and user of that name, out of the file. Absent is fine.
pub fn remove(path: &Path, name: &str) -> Result<(), Error> {
    if !path.exists() {
        return Ok(());
    }
    change(path, |config| {
        for section in ["clusters", "users", "contexts"] {
            named(config, section).retain(|item| item["name"] != name);
        }
        if config["current-context"] == name {
            config["current-context"] = json!("");
        }
    })
}

/// Writes `text` in one step, readable by its owner alone.
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    let at = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(at)?;
    }
    // A link is written through, not replaced: people keep their kubeconfig elsewhere.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let next = beside(&target, &format!(".{}.next", std::process::id()));
    let written = (|| {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, &target)
    })();
    written.map_err(|source| {
        // Best effort: the error that matters is the one that is returned.
        let _ = fs::remove_file(&next);
        at(source)
    })
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) -> Result<(), Error> {
    let _lock = Lock::take(path)?;
    let mut config = match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => json!({}),
        Ok(text) => serde_saphyr::from_str(&text).map_err(|error| Error::unreadable("the kubeconfig", error))?,
        Err(error) if error.kind() == ErrorKind::NotFound => json!({}),
        Err(source) => {
            return Err(Error::File {
                path: path.to_owned(),
                source,
            });
        }
    };
    if !config.is_object() {
        return Err(Error::unreadable("the kubeconfig", "it is not a mapping"));
    }
    for (key, value) in [("apiVersion", "v1"), ("kind", "Config")] {
        if config[key].is_null() {
            config[key] = json!(value);
        }
    }
    change(&mut config);
    write(path, &to_yaml(&config)?)
}

fn add(config: &mut Value, entry: &Entry, current: Current) {
    let mut cluster = json!({"server": entry.server});
    if !entry.authority_pem.is_empty() {
        cluster["certificate-authority-data"] = json!(STANDARD.encode(&entry.authority_pem));
    }
    let user = match &entry.credential {
        Credential::Certificate(certified) => json!({
            "client-certificate-data": STANDARD.encode(&certified.certificate_pem),
            "client-key-data": STANDARD.encode(&certified.key_pem),
        }),
        Credential::Token(token) => json!({"token": token}),
    };
    let mut context = json!({"cluster": entry.name, "user": entry.name});
    if let Some(namespace) = &entry.namespace {
        context["namespace"] = json!(namespace);
    }
    for (section, field, value) in [
        ("clusters", "cluster", cluster),
        ("users", "user", user),
        ("contexts", "context", context),
    ] {
        let mut item = Map::new();
        item.insert("name".to_owned(), json!(entry.name));
        item.insert(field.to_owned(), value);
        let items = named(config, section);
        match items.iter_mut().find(|item| item["name"] == entry.name) {
            Some(there) => *there = Value::Object(item),
            None => items.push(Value::Object(item)),
        }
    }
    let unset = config["current-context"].as_str().unwrap_or("").is_empty();
    if current == Current::Switch || unset {
        config["current-context"] = json!(entry.name);
    }
}

/// A section's list, made if there is none.
fn named<'a>(config: &'a mut Value, section: &str) -> &'a mut Vec<Value> {
    if !config[section].is_array() {
        config[section] = json!([]);
    }
    config[section].as_array_mut().expect("made an array just now")
}

fn to_yaml(config: &Value) -> Result<String, Error> {
    serde_saphyr::to_string(config).map_err(|error| Error::unreadable("the kubeconfig", error))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// kubectl's own lock: `<file>.lock`, made if absent, removed afterwards. Ours says whose it is, so that one whose holder was killed
/// stands in nobody's way.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Lock, Error> {
        let lock = beside(path, ".lock");
        let at = |source| Error::File {
            path: lock.clone(),
            source,
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(at)?;
        }
        // Linked to its name, it is never seen without what it says.
        let own = beside(path, &format!(".lock.{}", std::process::id()));
        let _ = fs::remove_file(&own);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&own);
        let written =
            file.and_then(|mut file| file.write_all(holder(std::process::id()).unwrap_or_default().as_bytes()));
        let taken = written.and_then(|()| {
            fs::hard_link(&own, &lock).or_else(|error| match error.kind() {
                ErrorKind::AlreadyExists if was_left(&lock) => {
                    fs::remove_file(&lock)?;
                    fs::hard_link(&own, &lock)
                }
                _ => Err(error),
            })
        });
        let _ = fs::remove_file(&own);
        match taken {
            Ok(()) => Ok(Lock(lock)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Error::Locked { path: path.to_owned() }),
            Err(source) => Err(at(source)),
        }
    }
}

/// Names a process for good: its number, and when it started. `None` if there is none.
fn holder(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let started = fields.nth(18)?;
    (!ended).then(|| format!("{pid} {started}"))
}

/// The lock is one of ours, and its holder is no more.
fn was_left(lock: &Path) -> bool {
    let said = fs::read_to_string(lock).unwrap_or_default();
    let pid = said.split(' ').next().and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| holder(pid).as_ref() != Some(&said))
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nothing better can be done: whoever comes next is told which file stands in the way.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            server: format!("https://127.0.0.1:6443/planes/{name}"),
            authority_pem: "PEM".to_owned(),
            credential: Credential::Token(format!("token-of-{name}")),
            namespace: None,
        }
    }

    fn parsed(path: &Path) -> Value {
        serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let certified = Certified {
            certificate_pem: "C".to_owned(),
            key_pem: "K".to_owned(),
        };
        let written = Entry {
            credential: Credential::Certificate(certified),
            namespace: Some("shop".to_owned()),
            ..entry("acme")
        };
        merge(&path, &written, Current::Switch).unwrap();
        merge(&path, &entry("globex"), Current::Keep).unwrap();

        let entry = read(&path).unwrap();

        assert_eq!(format!("{entry:?}"), format!("{written:?}"));
    }

    #[test]
    fn a_file_without_a_current_context_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        fs::write(&path, "contexts: []").unwrap();

        assert!(matches!(read(&path), Err(Error::Unreadable { .. })));
    }

    #[test]
    fn what_others_keep_in_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("config");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            &path,
            "apiVersion: v1\nkind: Config\ncurrent-context: prod\nextra: {a: 1}\nclusters:\n- name: prod\n  cluster: \
             {server: 'https://prod', insecure-skip-tls-verify: true}\nusers:\n- name: prod\n  user: {exec: {command: \
             aws, args: [eks]}}\ncontexts:\n- name: prod\n  context: {cluster: prod, user: prod}\n",
        )
        .unwrap();
        let before = parsed(&path);

        merge(&path, &entry("acme"), Current::Keep).unwrap();
        merge(&path, &entry("acme"), Current::Switch).unwrap();

        let between = parsed(&path);
        assert_eq!(between["current-context"], "acme");
        assert_eq!(between["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(between["users"][1]["user"]["token"], "token-of-acme");
        remove(&path, "acme").unwrap();
        let mut after = parsed(&path);
        after["current-context"] = json!("prod");
        assert_eq!(after, before);
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_has_a_current_context() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".kube").join("config");

        merge(&path, &entry("acme"), Current::Keep).unwrap();

        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(parsed(&path)["current-context"], "acme");
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no lock and no half-written file remain");
    }

    #[test]
    fn a_link_is_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();

        merge(&link, &entry("acme"), Current::Keep).unwrap();

        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(parsed(&real)["current-context"], "acme");
    }

    #[test]
    fn the_lock_of_a_process_that_was_killed_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let lock = beside(&path, ".lock");
        let mut holding = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let said = holder(holding.id()).unwrap();

        fs::write(&lock, &said).unwrap();
        assert!(matches!(
            merge(&path, &entry("acme"), Current::Switch),
            Err(Error::Locked { .. })
        ));
        holding.kill().unwrap();
        holding.wait().unwrap();
        merge(&path, &entry("acme"), Current::Switch).unwrap();
        // A number that was given to another process.
        fs::write(&lock, format!("{} 1", std::process::id())).unwrap();
        merge(&path, &entry("acme"), Current::Switch).unwrap();

        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_locked_or_unreadable_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        fs::write(&path, "just text").unwrap();

        assert!(matches!(
            merge(&path, &entry("acme"), Current::Keep),
            Err(Error::Unreadable { .. })
        ));
        fs::write(beside(&path, ".lock"), "").unwrap();
        assert!(matches!(
            merge(&path, &entry("acme"), Current::Keep),
            Err(Error::Locked { .. })
        ));

        assert_eq!(fs::read_to_string(&path).unwrap(), "just text");
    }
}
