//! What the demo shows: steps with the time they take, a picture, a table. At most 100 columns.

use std::{
    env,
    io::{self, IsTerminal, Write},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// Columns of a step's name.
const NAME: usize = 50;
const TICK: Duration = Duration::from_millis(100);

/// Standard output.
pub(crate) struct Screen {
    /// A terminal, where a line can be written again.
    live: bool,
    colours: bool,
    unicode: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let live = io::stdout().is_terminal();
        let charset = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
        Self {
            live,
            colours: live && env::var_os("NO_COLOR").is_none(),
            unicode: charset.is_some_and(|name| {
                let name = name.to_uppercase();
                name.contains("UTF-8") || name.contains("UTF8")
            }),
        }
    }

    pub(crate) fn title(&self, text: &str) {
        println!("\n{}\n", self.bold(text));
    }

    /// Does `work` under a name. While it runs the seconds count up; then what it says stands beside the time it took.
    pub(crate) fn step<T>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<(T, String)>,
    ) -> Result<T> {
        let start = Instant::now();
        let (done, ended) = mpsc::channel::<()>();
        let result = thread::scope(|scope| {
            if self.live {
                scope.spawn(move || {
                    while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                        let seconds = start.elapsed().as_secs_f32();
                        print!("\r  {} {name:NAME$} {seconds:5.1} s", self.running(start));
                        let _ = io::stdout().flush();
                    }
                });
            }
            let result = work();
            drop(done);
            result
        });
        if self.live {
            print!("\r\x1b[K");
        }
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok((value, said)) => {
                let mark = self.colour(32, if self.unicode { "✓" } else { "*" });
                let line = format!("  {mark} {name:NAME$} {seconds:5.1} s  {said}");
                println!("{}", line.trim_end());
                Ok(value)
            }
            Err(error) => {
                let mark = self.colour(31, if self.unicode { "✗" } else { "!" });
                println!("  {mark} {name:NAME$} {seconds:5.1} s");
                Err(error)
            }
        }
    }

    /// Guests at the left, the switch at the right.
    pub(crate) fn picture(&self, guests: &[&str; 2]) {
        let lines = if self.unicode {
            ["──┐", "  ├── ringway switch", "──┘"]
        } else {
            ["--.", "  |-- ringway switch", "--'"]
        };
        let width = guests.map(str::len).into_iter().max().unwrap_or(0);
        println!();
        for (guest, line) in [guests[0], "", guests[1]].into_iter().zip(lines) {
            println!("      {guest:width$}  {line}");
        }
        println!();
    }

    /// Rows of a name and two values; a value alone stands over both columns.
    pub(crate) fn table(&self, heading: [&str; 3], rows: &[(&str, Vec<String>)]) {
        let rule = if self.unicode { "─" } else { "-" }.repeat(75);
        let [name, left, right] = heading;
        println!(
            "\n  {}\n  {rule}",
            self.bold(&format!("{name:31}{left:>22}{right:>22}"))
        );
        for (name, values) in rows {
            match &values[..] {
                [left, right] => println!("  {name:31}{left:>22}{right:>22}"),
                values => println!("  {name:31}{:>44}", values.join(" ")),
            }
        }
        println!("  {rule}");
    }

    pub(crate) fn note(&self, text: &str) {
        println!("  {text}");
    }

    pub(crate) fn blank(&self) {
        println!();
    }

    /// An arrow between the names of two guests.
    pub(crate) fn arrow(&self) -> &'static str {
        if self.unicode { "→" } else { "to" }
    }

    pub(crate) fn failure(&self, text: &str) {
        println!("\n{} {text}", self.colour(31, "failed:"));
    }

    fn running(&self, start: Instant) -> String {
        let frames: [&str; 4] = if self.unicode {
            ["◐", "◓", "◑", "◒"]
        } else {
            ["|", "/", "-", "\\"]
        };
        let tick = start.elapsed().as_millis() / TICK.as_millis();
        self.colour(36, frames[(tick % 4) as usize])
    }

    fn bold(&self, text: &str) -> String {
        self.colour(1, text)
    }

    fn colour(&self, code: u8, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
