//! A server of a peer, as a child process in a folder of its own.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::way::Outcome;

const PATIENCE: Duration = Duration::from_secs(60);

/// Ends with its folder when it is dropped.
pub(crate) struct Server {
    _child: Child,
    pub(crate) port: u16,
    _folder: TempDir,
}

impl Server {
    pub(crate) async fn start(mut command: Command, folder: TempDir, port: u16) -> Outcome<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let program = command.as_std().get_program().to_owned();
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let listening = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, listening).await.map_err(|_| format!("{} does not listen", program.display()))?;
        Ok(Self { _child: child, port, _folder: folder })
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// In memory where the system has that: the Redis that we are measured on does not write to a disk either.
pub(crate) fn folder() -> Outcome<TempDir> {
    Ok(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?)
}

pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
