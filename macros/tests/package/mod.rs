//! Packages that are built while testing, with the versions that this one is built with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A package of its own.
pub(crate) struct Package(PathBuf);

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the workspace")
}

impl Package {
    /// An empty one.
    pub(crate) fn new(name: &str) -> Self {
        let dir = root().join("target/tests").join(format!("larder-{name}"));
        for sources in ["src", "examples"] {
            let _ = fs::remove_dir_all(dir.join(sources));
            fs::create_dir_all(dir.join(sources)).expect("a directory");
        }
        let manifest = format!(
            r#"[package]
name = "{name}"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
serde = {{ version = "1", features = ["derive"] }}

[dependencies.larder]
path = {:?}
default-features = false
features = ["macros", "moka"]
"#,
            root()
        );
        let package = Self(dir);
        package.write("Cargo.toml", &manifest);
        package.write("src/lib.rs", "");
        fs::copy(root().join("Cargo.lock"), package.0.join("Cargo.lock")).expect("the lock file");
        package
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::write(self.0.join(path), text).expect("a file");
    }

    pub(crate) fn cargo(&self, arguments: &[&str]) -> Output {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments).current_dir(&self.0);
        cargo.env("CARGO_TARGET_DIR", root().join("target/tests/larder-built"));
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
        cargo.output().expect("cargo")
    }
}
