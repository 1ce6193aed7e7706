//! TOML files that people write.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;

/// What is in a file; `-` is standard input.
pub(crate) fn toml<T: DeserializeOwned>(path: &Path) -> Result<T, anyhow::Error> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(path).map(|read| text = read)
    };
    read.with_context(|| format!("{} cannot be read", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| format!(", line {}", before.matches('\n').count() + 1));
        let message = error.message().replace('\n', ", ");
        let place = line.unwrap_or_default();
        anyhow!("{}{place}: {message}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use ringway_api::v1::Document;

    use super::*;

    #[test]
    fn what_is_wrong_in_a_file_is_one_sentence_with_its_line() {
        let path = std::env::temp_dir().join(format!("rw-file-{}.toml", std::process::id()));
        for (text, parts) in [
            (
                "[[network]]\nname = 'lan'\nsubnett = 1\n",
                ["line 3", "unknown field `subnett`"],
            ),
            ("[[network]]\nname = 'a b'\n", ["line 2", "is no name"]),
            ("\n[[network]\n", ["line 2", ""]),
        ] {
            fs::write(&path, text).unwrap();
            let error = toml::<Document>(&path).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
            for part in parts {
                assert!(error.contains(part), "{error}");
            }
        }
        fs::remove_file(&path).unwrap();
        let error = format!("{:#}", toml::<Document>(&path).unwrap_err());
        assert!(error.contains("cannot be read: No such file"), "{error}");
    }
}
