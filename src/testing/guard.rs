//! A shell that outlives the test, to clean up behind one that was killed.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::probe::PAUSE;

/// A shell that runs the script; its standard input is a pipe from this process.
///
/// It is a process group of its own: Ctrl-C and the like reach the test only, and its end then reaches the shell.
pub(super) fn command(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

/// Closes the pipe and waits until the shell has done its work and is gone.
pub(super) fn end(guard: &mut Child, patience: Duration) {
    drop(guard.stdin.take());
    let deadline = Instant::now() + patience;
    while matches!(guard.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            dismiss(guard);
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Ends the shell without its work, which has been done already.
pub(super) fn dismiss(guard: &mut Child) {
    // It may have ended by itself.
    let _ = guard.kill();
    let _ = guard.wait();
}
