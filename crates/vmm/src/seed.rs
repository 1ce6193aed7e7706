//! The seed of cloud-init: a small disk labelled `cidata` with `user-data` and `meta-data` (cloud-init's NoCloud source).

mod fat;

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

pub use fat::{Fat, FatError};

/// What the guest is told on its first boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Its host name.
    pub name: String,
    /// Differs when cloud-init shall take the machine for a new one.
    pub instance: String,
    /// Who may log in.
    pub login: Login,
}

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Login {
    /// A user who may become root without a password, with a key, a password, or both.
    User {
        /// The user's name.
        name: String,
        /// A public key.
        key: Option<String>,
        /// A password.
        password: Option<String>,
    },
    /// Whatever this text says, which cloud-init understands (`#cloud-config`, a script, a MIME archive).
    Given(String),
}

impl Seed {
    /// The file `user-data`.
    pub fn user_data(&self) -> String {
        let (name, key, password) = match &self.login {
            Login::Given(text) => return text.clone(),
            Login::User {
                name,
                key,
                password,
            } => (name, key, password),
        };
        let mut text = format!(
            "#cloud-config\nusers:\n  - name: {}\n    shell: /bin/bash\n    sudo: \"ALL=(ALL) NOPASSWD:ALL\"\n",
            quoted(name)
        );
        let locked = password.is_none();
        text += &format!("    lock_passwd: {locked}\n");
        if let Some(key) = key {
            text += &format!("    ssh_authorized_keys:\n      - {}\n", quoted(key.trim()));
        }
        if let Some(password) = password {
            text += &format!(
                "ssh_pwauth: true\nchpasswd:\n  expire: false\n  users:\n    - name: {}\n      password: {}\n      type: text\n",
                quoted(name),
                quoted(password)
            );
        }
        text
    }

    /// The file `meta-data`.
    pub fn meta_data(&self) -> String {
        format!(
            "instance-id: {}\nlocal-hostname: {}\n",
            quoted(&self.instance),
            quoted(&self.name)
        )
    }

    /// Writes the disk to a new file that only its owner reads: it may hold a password.
    pub fn write(&self, path: &Path) -> Result<(), SeedError> {
        use std::os::unix::fs::OpenOptionsExt;
        let (user, meta) = (self.user_data(), self.meta_data());
        let files = [
            ("meta-data", meta.as_bytes()),
            ("user-data", user.as_bytes()),
        ];
        let image = Fat::new("cidata", &files)?;
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        file.and_then(|mut file| io::Write::write_all(&mut file, image.bytes()))
            .map_err(SeedError::Write)
    }
}

/// Why there is no seed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The files do not fit.
    #[error(transparent)]
    Fat(#[from] FatError),
    /// The file cannot be written.
    #[error("the seed of cloud-init cannot be written: {0}")]
    Write(io::Error),
}

/// As a string of YAML, in which JSON's escapes are understood.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(key: Option<&str>, password: Option<&str>) -> Seed {
        Seed {
            name: "web".into(),
            instance: "web-1".into(),
            login: Login::User {
                name: "ringway".into(),
                key: key.map(Into::into),
                password: password.map(Into::into),
            },
        }
    }

    #[test]
    fn a_key_opens_and_no_password_does() {
        assert_eq!(
            seed(Some("ssh-ed25519 AAAA me@here\n"), None).user_data(),
            "#cloud-config\nusers:\n  - name: \"ringway\"\n    shell: /bin/bash\n    sudo: \"ALL=(ALL) NOPASSWD:ALL\"\n    \
             lock_passwd: true\n    ssh_authorized_keys:\n      - \"ssh-ed25519 AAAA me@here\"\n"
        );
        let text = seed(None, None).meta_data();
        assert_eq!(text, "instance-id: \"web-1\"\nlocal-hostname: \"web\"\n");
    }

    #[test]
    fn a_password_cannot_become_anything_else() {
        let text = seed(None, Some("a\"\nusers: []")).user_data();
        assert!(text.contains(r#"password: "a\"\nusers: []""#), "{text}");
        assert!(text.contains("lock_passwd: false"), "{text}");
    }

    #[test]
    fn what_was_given_is_passed_on_as_it_is() {
        let mut given = seed(None, None);
        given.login = Login::Given("#!/bin/sh\ntrue\n".into());
        assert_eq!(given.user_data(), "#!/bin/sh\ntrue\n");
    }
}
