//! Tables, and how an older file gets them. A step is never changed once released: a new one is added.

use rusqlite::Connection;

/// What `user_version` of the file counts: how many of the steps were taken.
pub(super) const VERSION: u32 = 1;

const STEPS: [&str; VERSION as usize] = ["
    CREATE TABLE network (
        name TEXT PRIMARY KEY,
        spec TEXT NOT NULL
    ) STRICT;
    CREATE TABLE number (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE lease (
        network TEXT NOT NULL,
        address TEXT NOT NULL,
        client_id BLOB,
        mac BLOB NOT NULL,
        name TEXT,
        expires INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('bound', 'free', 'declined')),
        PRIMARY KEY (network, address)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE intent (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        old TEXT NOT NULL,
        new TEXT NOT NULL
    ) STRICT;
"];

/// Takes the steps that the file lacks, all or none; gives the version it had. A newer file is left as it is.
pub(super) fn migrate(connection: &mut Connection) -> Result<u32, rusqlite::Error> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let before: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for step in STEPS.iter().skip(before as usize) {
        transaction.execute_batch(step)?;
    }
    if before < VERSION {
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(before)
}
