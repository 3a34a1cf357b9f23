//! Terminal with a program on it: reads the screen and types on the keyboard.
#![allow(
    unsafe_code,
    reason = "rustix opens no terminal without a feature that wasmtime is not built with"
)]

use std::{
    fs::File,
    io::{self, Read, Write},
    num::NonZero,
    os::fd::{FromRawFd, OwnedFd},
    process::{Child, Command, ExitStatus},
    ptr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::termios::{Termios, tcgetattr};
use vt100::Parser;

const PAUSE: Duration = Duration::from_millis(5);

/// Terminal with a running program. Dropping it kills the program.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// The program's end, open so that its settings can be read after the program has ended.
    line: OwnedFd,
    before: Termios,
    parser: Arc<Mutex<Parser>>,
}

impl Terminal {
    /// Runs a program on a terminal of this size.
    pub fn run(program: &Command, rows: NonZero<u16>, columns: NonZero<u16>) -> Result<Self> {
        let (keyboard, line) = open(rows.get(), columns.get())?;
        let before = tcgetattr(&line)?;
        // The program has a session of its own, because the kernel sends the signals of keys to the terminal's session.
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(program.get_program())
            .args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("TERM", "xterm");
        let child = command
            .stdin(line.try_clone()?)
            .stdout(line.try_clone()?)
            .stderr(line.try_clone()?)
            .spawn()?;
        let parser = Arc::new(Mutex::new(Parser::new(rows, columns, 0)));
        let (mut output, shown) = (keyboard.try_clone()?, Arc::clone(&parser));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The loop ends when no process has the terminal open any longer.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .process(&bytes[..count]);
            }
        });
        Ok(Self {
            child,
            keyboard,
            line,
            before,
            parser,
        })
    }

    /// Returns the text on the screen.
    pub fn text(&self) -> String {
        self.parser().screen().contents()
    }

    /// Waits until the text on the screen satisfies a condition, and returns it.
    pub fn expect(&self, what: &str, timeout: Duration, is: impl Fn(&str) -> bool) -> Result<String> {
        let until = Instant::now() + timeout;
        loop {
            let text = self.text();
            if is(&text) {
                return Ok(text);
            }
            if Instant::now() > until {
                bail!("{what} does not show:\n{text}");
            }
            thread::sleep(PAUSE);
        }
    }

    /// Types a text.
    pub fn types(&mut self, text: &str) -> Result<()> {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    /// Waits until the program ends.
    pub fn ends(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("the program is still running:\n{}", self.text());
            }
            thread::sleep(PAUSE);
        }
    }

    /// Returns true if the settings, the main screen and the cursor are as before the program.
    pub fn is_restored(&self) -> Result<bool> {
        let (now, before) = (tcgetattr(&self.line)?, &self.before);
        let modes = |of: &Termios| (of.input_modes, of.output_modes, of.control_modes, of.local_modes);
        let parser = self.parser();
        let screen = parser.screen();
        Ok(modes(&now) == modes(before) && !screen.alternate_screen() && !screen.hide_cursor())
    }

    fn parser(&self) -> std::sync::MutexGuard<'_, Parser> {
        self.parser.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The program may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens a new terminal. Returns the user's end and the program's end.
fn open(rows: u16, columns: u16) -> io::Result<(File, OwnedFd)> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut user, mut line) = (-1, -1);
    // SAFETY: the pointers are to values that live until the call returns, or null where openpty permits it.
    let opened = unsafe { libc::openpty(&mut user, &mut line, ptr::null_mut(), ptr::null(), &size) };
    if opened != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: openpty has just opened both descriptors, and nothing else owns them.
    let (user, line) = unsafe { (OwnedFd::from_raw_fd(user), OwnedFd::from_raw_fd(line)) };
    for end in [&user, &line] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok((user.into(), line))
}
