//! A server in a container.

use std::time::Duration;

use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use super::TestRedisError;

/// How long pulling and starting may take.
const STARTUP: Duration = Duration::from_secs(60);
const PORT: u16 = 6379;

pub(super) struct Container {
    container: ContainerAsync<GenericImage>,
}

pub(super) fn image() -> String {
    std::env::var("GROUP_REDIS_TEST_IMAGE").unwrap_or_else(|_| "redis:7".to_owned())
}

fn refused(what: &'static str) -> impl FnOnce(testcontainers::TestcontainersError) -> TestRedisError {
    move |error| TestRedisError::refused(what, error)
}

impl Container {
    /// The port on the host is fixed, so that a container that was stopped comes back where it was.
    pub(super) async fn start(args: &[String], port: u16) -> Result<Self, TestRedisError> {
        let image = image();
        let (name, tag) = match image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (image.as_str(), "latest"),
        };
        let command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/data"];
        let container = GenericImage::new(name, tag)
            .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
            .with_mapped_port(port, PORT.tcp())
            .with_cmd(command.iter().map(|word| (*word).to_owned()).chain(args.iter().cloned()))
            .with_startup_timeout(STARTUP)
            .start()
            .await
            .map_err(refused("starting a container"))?;
        Ok(Self { container })
    }

    pub(super) async fn kill(&self) -> Result<(), TestRedisError> {
        self.container.stop_with_timeout(Some(0)).await.map_err(refused("stopping the container"))
    }

    pub(super) async fn run(&self) -> Result<(), TestRedisError> {
        self.container.start().await.map_err(refused("starting the container again"))
    }

    pub(super) async fn pause(&self) -> Result<(), TestRedisError> {
        self.container.pause().await.map_err(refused("pausing the container"))
    }

    pub(super) async fn unpause(&self) -> Result<(), TestRedisError> {
        self.container.unpause().await.map_err(refused("unpausing the container"))
    }
}
