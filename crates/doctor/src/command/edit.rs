//! A command line with something changed, as a person would paste it.

use serde_json::{Map, Value};

use super::{Options, options};
use crate::finding::visible;

/// Words of a command line that are being changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    words: Vec<String>,
}

impl Edit {
    /// Of these words, the program first.
    pub fn new(words: &[String]) -> Self {
        Self {
            words: words.to_vec(),
        }
    }

    /// Of a line that [`Edit::line`] made.
    pub fn read(line: &str) -> Option<Self> {
        let mut words = Vec::new();
        let mut word: Option<Vec<u8>> = None;
        let mut rest = line.bytes().peekable();
        while let Some(byte) = rest.next() {
            match byte {
                b' ' => words.extend(word.take()),
                b'#' if word.is_none() => return None,
                b'\'' => loop {
                    match rest.next()? {
                        b'\'' => {
                            word.get_or_insert_default();
                            break;
                        }
                        byte => word.get_or_insert_default().push(byte),
                    }
                },
                b'\\' => word.get_or_insert_default().push(rest.next()?),
                b'$' => return None,
                byte => word.get_or_insert_default().push(byte),
            }
        }
        words.extend(word);
        let words: Result<Vec<String>, _> = words.into_iter().map(String::from_utf8).collect();
        Some(Self { words: words.ok()? })
    }

    /// Sets a key of the last option of one of these names that is wanted, in the form it is written in; whether there is one.
    pub fn set(
        &mut self,
        names: &[&str],
        wanted: impl Fn(&Options) -> bool,
        key: &str,
        value: &str,
    ) -> bool {
        self.change(names, wanted, key, Some(value))
    }

    /// Takes a key away.
    pub fn unset(&mut self, names: &[&str], wanted: impl Fn(&Options) -> bool, key: &str) -> bool {
        self.change(names, wanted, key, None)
    }

    /// Takes whole options of that name away.
    pub fn remove(&mut self, name: &str) {
        while let Some((option, value)) = self.find(&[name], |_| true) {
            self.words.drain(option..=value.unwrap_or(option));
        }
    }

    /// Adds an option at the end.
    pub fn add(&mut self, name: &str, value: &str) {
        self.words.extend([format!("-{name}"), value.to_owned()]);
    }

    /// The words.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// As a shell takes it.
    pub fn line(&self) -> String {
        let words: Vec<String> = self.words.iter().map(|word| quoted(word)).collect();
        words.join(" ")
    }

    fn change(
        &mut self,
        names: &[&str],
        wanted: impl Fn(&Options) -> bool,
        key: &str,
        value: Option<&str>,
    ) -> bool {
        let Some((_, Some(index))) = self.find(names, wanted) else {
            return false;
        };
        let word = &mut self.words[index];
        *word = match serde_json::from_str(word) {
            Ok(Value::Object(object)) => in_json(object, key, value),
            _ => in_list(word, key, value),
        };
        true
    }

    /// Where the last such option is, and what follows it.
    fn find(
        &self,
        names: &[&str],
        wanted: impl Fn(&Options) -> bool,
    ) -> Option<(usize, Option<usize>)> {
        let mut found = None;
        for index in 1..self.words.len() {
            let word = &self.words[index];
            let name = word.strip_prefix("--").or(word.strip_prefix('-'));
            if !name.is_some_and(|name| names.contains(&name)) {
                continue;
            }
            let value = self.words.get(index + 1);
            let value = value.filter(|value| !value.starts_with('-'));
            if wanted(&Options::parse(value.map_or("", String::as_str))) {
                found = Some((index, value.map(|_| index + 1)));
            }
        }
        found
    }
}

fn in_json(mut object: Map<String, Value>, key: &str, value: Option<&str>) -> String {
    match value {
        None => {
            object.remove(key);
        }
        Some(text) => {
            let value = match (text, text.parse::<u64>()) {
                ("on", _) => true.into(),
                ("off", _) => false.into(),
                (_, Ok(number)) => number.into(),
                _ => text.into(),
            };
            object.insert(key.to_owned(), value);
        }
    }
    Value::Object(object).to_string()
}

fn in_list(word: &str, key: &str, value: Option<&str>) -> String {
    let negated = format!("no{key}");
    let is_it = |part: &str| {
        let name = part.split_once('=').map_or(part, |(name, _)| name);
        name == key || part == negated
    };
    let new = value.map(|value| format!("{key}={}", value.replace(',', ",,")));
    let mut parts = Vec::new();
    let mut there = false;
    for (index, part) in options::split(word).into_iter().enumerate() {
        // The first word without a key is the kind, whatever it is called.
        let kind = index == 0 && !part.contains('=');
        if !kind && is_it(&part) {
            if !there {
                parts.extend(new.clone());
            }
            there = true;
        } else if !part.is_empty() {
            parts.push(part.replace(',', ",,"));
        }
    }
    if !there {
        parts.extend(new);
    }
    parts.join(",")
}

/// A word as a shell takes it. What cannot be shown in a line is written by its number, as shells have it since POSIX 2024.
pub fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:,=@%+-".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    if visible(word) == word {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let bytes = word.bytes().map(|byte| match byte {
        b' ' => " ".into(),
        // Three digits: the next one would be taken for a part of it.
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("\\{byte:03o}"),
    });
    format!("$'{}'", bytes.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(line: &str) -> Edit {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Edit::new(&words)
    }

    #[test]
    fn keys_are_set_where_they_stand_or_at_the_end() {
        let mut edit = edit(
            "qemu -nodefaults -chardev socket,id=a,path=/x,,y,server,nowait -netdev vhost-user,id=n,chardev=a",
        );
        let it = |options: &Options| options.get("id") == Some("a");
        assert!(edit.unset(&["chardev"], it, "server"));
        assert!(edit.unset(&["chardev"], it, "wait"));
        assert!(edit.set(&["chardev"], it, "path", "/z,1"));
        assert!(edit.set(&["netdev"], |_| true, "queues", "4"));
        assert!(!edit.set(&["device"], |_| true, "mq", "on"));
        edit.add("append", "a 'b'");
        assert_eq!(
            edit.line(),
            r"qemu -nodefaults -chardev socket,id=a,path=/z,,1 -netdev vhost-user,id=n,chardev=a,queues=4 -append 'a '\''b'\'''"
        );
        edit.remove("nodefaults");
        edit.remove("append");
        assert!(edit.line().starts_with("qemu -chardev") && !edit.line().contains("append"));
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for words in [vec!["qemu", "a 'b'", "", "é;$x"], vec!["one"]] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            let edit = Edit::new(&words);
            assert_eq!(Edit::read(&edit.line()), Some(edit));
        }
        for other in ["# a comment", "'open", r"$'a\012'", r"a\"] {
            assert_eq!(Edit::read(other), None, "{other}");
        }
    }

    #[test]
    fn no_word_ends_its_line() {
        assert_eq!(quoted("a;b"), "'a;b'");
        assert_eq!(quoted("a\nb'\u{1b}"), r"$'a\012b\047\033'");
    }

    #[test]
    fn json_stays_json() {
        let mut edit = edit(r#"qemu -device {"driver":"virtio-net-pci","netdev":"n","vectors":3}"#);
        let it = |options: &Options| options.get("netdev") == Some("n");
        assert!(edit.set(&["device"], it, "vectors", "6"));
        assert!(edit.set(&["device"], it, "mq", "on"));
        let object: Value = serde_json::from_str(&edit.words()[2]).unwrap();
        assert_eq!(object["vectors"], 6);
        assert_eq!(object["mq"], true);
    }
}
