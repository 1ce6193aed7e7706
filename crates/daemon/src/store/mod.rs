//! What has to survive: the networks, the leases, and the intent of a change that is under way. SQLite, in one file.
//!
//! Everything is committed before anybody is told (WAL, `synchronous=FULL`).

mod lease;
mod schema;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringway_api::v1::Name;
use ringway_network::State;
use ringway_service::leases::Lease;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// How long somebody who looks into the file with another program is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// Why something was not kept, or not found again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// No directory.
    #[error("cannot make the directory {}: give another one with --state", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// SQLite refused.
    #[error("the store {} does not work", path.display())]
    Sqlite {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    /// Made by a later version.
    #[error(
        "the store {} is of version {found}, this program knows {known}: run the newer program",
        path.display()
    )]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    /// What is in it makes no sense.
    #[error("the store {} has a {what} that cannot be read", path.display())]
    Text {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

/// A change under way: from one state to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) old: State,
    pub(crate) new: State,
}

/// The open store.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    path: PathBuf,
    /// Whether it was made just now.
    pub(crate) fresh: bool,
}

impl Store {
    /// Opens the store in `directory`, or makes one.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory).map_err(|source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let path = directory.join("ringway.sqlite");
        let sqlite = |source| StoreError::Sqlite {
            path: path.clone(),
            source,
        };
        let mut connection = Connection::open(&path).map_err(sqlite)?;
        let prepare = |connection: &Connection| {
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "full")
        };
        prepare(&connection).map_err(sqlite)?;
        let before = schema::migrate(&mut connection).map_err(sqlite)?;
        if before > schema::VERSION {
            return Err(StoreError::Newer {
                path,
                found: before,
                known: schema::VERSION,
            });
        }
        Ok(Self {
            connection,
            path,
            fresh: before == 0,
        })
    }

    /// The state as committed.
    pub(crate) fn state(&self) -> Result<State, StoreError> {
        let rows = || {
            let mut query = self.connection.prepare("SELECT spec FROM network")?;
            let texts = query.query_map([], |row| row.get::<_, String>(0))?;
            let texts = texts.collect::<Result<Vec<_>, _>>()?;
            let next = self.connection.query_row(
                "SELECT value FROM number WHERE name = 'next-forward'",
                [],
                |row| row.get::<_, i64>(0),
            );
            Ok((texts, next.optional()?))
        };
        let (texts, next) = rows().map_err(|error| self.sqlite(error))?;
        let mut state = State {
            next_forward: next.unwrap_or(0).cast_unsigned(),
            ..State::default()
        };
        for text in texts {
            let network: ringway_network::Network =
                serde_json::from_str(&text).map_err(|error| self.text("network", error))?;
            state.networks.insert(network.spec.name.clone(), network);
        }
        Ok(state)
    }

    /// The change that was under way when a daemon died.
    pub(crate) fn intent(&self) -> Result<Option<Intent>, StoreError> {
        let row = self
            .connection
            .query_row("SELECT old, new FROM intent", [], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
            .optional()
            .map_err(|error| self.sqlite(error))?;
        let read =
            |text: String| serde_json::from_str(&text).map_err(|error| self.text("intent", error));
        row.map(|(old, new)| {
            Ok(Intent {
                old: read(old)?,
                new: read(new)?,
            })
        })
        .transpose()
    }

    /// Writes down what is going to be done.
    pub(crate) fn begin(&mut self, intent: &Intent) -> Result<(), StoreError> {
        let write = |state: &State| {
            serde_json::to_string(state).map_err(|error| self.text("intent", error))
        };
        let (old, new) = (write(&intent.old)?, write(&intent.new)?);
        self.transaction(|transaction| {
            transaction
                .execute(
                    "INSERT OR REPLACE INTO intent (id, old, new) VALUES (1, ?1, ?2)",
                    params![old, new],
                )
                .map(drop)
        })
    }

    /// It is done: this is the state. Leases of networks that are gone go too.
    pub(crate) fn commit(&mut self, state: &State) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for (name, network) in &state.networks {
            let text =
                serde_json::to_string(network).map_err(|error| self.text("network", error))?;
            rows.push((name.to_string(), text));
        }
        self.transaction(|transaction| {
            transaction.execute("DELETE FROM network", [])?;
            for (name, text) in &rows {
                transaction.execute(
                    "INSERT INTO network (name, spec) VALUES (?1, ?2)",
                    params![name, text],
                )?;
            }
            transaction.execute(
                "INSERT OR REPLACE INTO number (name, value) VALUES ('next-forward', ?1)",
                params![state.next_forward.cast_signed()],
            )?;
            transaction.execute(
                "DELETE FROM lease WHERE network NOT IN (SELECT name FROM network)",
                [],
            )?;
            transaction.execute("DELETE FROM intent", []).map(drop)
        })
    }

    /// It was taken back.
    pub(crate) fn abandon(&mut self) -> Result<(), StoreError> {
        self.transaction(|transaction| transaction.execute("DELETE FROM intent", []).map(drop))
    }

    /// Every lease of a network.
    pub(crate) fn leases(&self, network: &Name) -> Result<Vec<Lease>, StoreError> {
        lease::all(&self.connection, network).map_err(|error| self.sqlite(error))
    }

    /// Keeps leases of a network, each in place of what was there for its address: all or none.
    pub(crate) fn put_leases(
        &mut self,
        network: &Name,
        leases: &[Lease],
    ) -> Result<(), StoreError> {
        self.transaction(|transaction| lease::put(transaction, network, leases))
    }

    fn transaction(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<(), rusqlite::Error>,
    ) -> Result<(), StoreError> {
        let done = (|| {
            let transaction = self.connection.transaction()?;
            work(&transaction)?;
            transaction.commit()
        })();
        done.map_err(|error| self.sqlite(error))
    }

    fn sqlite(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite {
            path: self.path.clone(),
            source,
        }
    }

    fn text(&self, what: &'static str, source: serde_json::Error) -> StoreError {
        StoreError::Text {
            path: self.path.clone(),
            what,
            source,
        }
    }
}
