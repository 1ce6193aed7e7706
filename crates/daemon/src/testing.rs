//! What tests of several modules need.

use std::path::{Path, PathBuf};

use ringway_api::v1::NetworkSpec;

/// A directory of its own that goes with the value.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringway-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A NAT network of which nothing but the name is said.
pub(crate) fn spec(name: &str) -> NetworkSpec {
    NetworkSpec {
        name: name.parse().unwrap(),
        kind: Default::default(),
        subnet: None,
        subnet6: None,
        bridge: None,
        mtu: None,
        dhcp: Default::default(),
        dns: Default::default(),
    }
}
