//! A server in a container.

use std::process::Child;
use std::time::Duration;

use redis::Client;
use testcontainers::core::IntoContainerPort;
use testcontainers::core::client::docker_client_instance;
use testcontainers::runners::AsyncRunner;
use testcontainers::{
    ContainerAsync, ContainerRequest, CopyDataSource, CopyTargetOptions, GenericImage, ImageExt, TestcontainersError,
};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use super::backend::{IMAGE, say, setting};
use super::error::Cause;
use super::plan::{Endpoint, Network, Plan};
use super::probe::{self, Identity, PAUSE, Port};
use super::process::HOST;
use super::{TestRedisError, guard, launch, log};

/// How long the engine may take to say what it has, and a registry whether it has the image.
const QUESTION: Duration = Duration::from_secs(5);
/// How long pulling may take, once the registry has said that it has the image.
const PULL: Duration = Duration::from_secs(180);
/// How long the engine may take for anything it does with a container.
const ACTION: Duration = Duration::from_secs(60);
/// How long a test that ends may wait for its container to be removed.
const REMOVAL: Duration = Duration::from_secs(20);
const PORT: u16 = 6379;
/// Where a server in a container has its files.
const FOLDER: &str = "/data";

/// Removes the container of a test that was killed. It needs the engine's command line: without one, the container of
/// such a test stays. It asks more than once, since the engine may still be making the container; a name that is printed
/// is a container that was removed.
const SCRIPT: &str = r#"
while read -r _; do :; done
command -v docker || exit
for _ in 1 2 3 4 5; do
  [ -z "$(docker rm --force --volumes "$1")" ] || exit
  sleep 0.2
done
"#;

/// A running container; dropped, it is removed.
pub(super) struct Container {
    /// Empty when it is being removed.
    container: Option<ContainerAsync<GenericImage>>,
    guard: Option<Child>,
    network: Network,
}

/// What else than `localhost` the host of a container may be called, as far as this is known before there is one.
pub(super) fn host_names() -> Vec<String> {
    let engine = std::env::var("DOCKER_HOST").ok();
    let engine = engine.as_deref().and_then(|url| url.strip_prefix("tcp://")?.split([':', '/']).next());
    // What a container has as the address of its host, where the engine has the network that it comes with.
    ["172.17.0.1"].into_iter().chain(engine).map(str::to_owned).collect()
}

/// Name and tag. A colon before the last slash belongs to the registry's port.
fn image() -> (String, String) {
    let image = setting(IMAGE).unwrap_or_else(|| "redis:7".to_owned());
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (image, "latest".to_owned()),
    }
}

async fn bounded<T>(
    what: &'static str,
    limit: Duration,
    action: impl Future<Output = Result<T, impl Into<Cause>>>,
) -> Result<T, TestRedisError> {
    match timeout(limit, action).await {
        Ok(done) => done.map_err(|error| TestRedisError::refused(what, error)),
        Err(_) => Err(TestRedisError::Timeout(what, limit, "no answer of the engine".to_owned())),
    }
}

/// Whether an engine answers and has the image, after pulling it if need be. Without them, the next test would wait for
/// the same refusal: so the first answer is kept.
pub(super) async fn is_available() -> Result<(), TestRedisError> {
    static ANSWER: OnceCell<Result<(), String>> = OnceCell::const_new();
    let answer = ANSWER.get_or_init(|| async { look_for_image().await.map_err(|error| error.to_string()) }).await;
    answer.clone().map_err(|why| TestRedisError::refused("not available", why))
}

async fn look_for_image() -> Result<(), TestRedisError> {
    let engine = bounded("looking for a Docker engine", QUESTION, docker_client_instance()).await?;
    bounded("asking the Docker engine", QUESTION, engine.ping()).await?;
    let (name, tag) = image();
    let full = format!("{name}:{tag}");
    if bounded("looking for the image", QUESTION, engine.inspect_image(&full)).await.is_ok() {
        return Ok(());
    }
    // A pull that cannot work may take minutes to say so.
    let registry = bounded("asking the registry", QUESTION, engine.inspect_registry_image(&full, None)).await;
    registry.map_err(|error| {
        let why = format!("the engine has no {full} and cannot pull it ({IMAGE} names another): {error}");
        TestRedisError::refused("looking for the image", why)
    })?;
    say(&format!("pulling {full}"));
    bounded("pulling the image", PULL, GenericImage::new(name, tag).pull_image()).await.map(drop)
}

/// What is to run in a container, and the files that it finds there, with their modes.
fn request(
    command: impl IntoIterator<Item = String>,
    files: impl IntoIterator<Item = (String, CopyDataSource, u32)>,
) -> ContainerRequest<GenericImage> {
    let (image, tag) = image();
    let request = GenericImage::new(image, tag).with_cmd(command);
    files.into_iter().fold(request, |request, (path, content, mode)| {
        request.with_copy_to(CopyTargetOptions::new(path).with_mode(mode), content)
    })
}

impl Container {
    /// Starts a container with a server that has no data, and waits until it answers.
    ///
    /// The port on the host is fixed, so that a server that was stopped comes back where it was.
    pub(super) async fn start(plan: &Plan, port: u16) -> Result<(Self, Endpoint, Identity), TestRedisError> {
        let (address, inside) = match plan.network {
            Network::Own => ("0.0.0.0", plan.fixed_port().unwrap_or(PORT)),
            Network::Host => (HOST, port),
        };
        let command = ["redis-server", "--bind", address, "--protected-mode", "no", "--save", "", "--dir", FOLDER];
        let command = command.iter().map(|word| (*word).to_owned()).chain(plan.args(inside));
        let files = plan.files().into_iter().map(|file| (file.to_string_lossy().into_owned(), file.into(), 0o644));
        let mut request = request(command, files);
        if plan.network == Network::Own {
            request = request.with_mapped_port(port, inside.tcp());
            if let Some(other) = plan.other_port {
                request = request.with_mapped_port(other, other.tcp());
            }
        }
        let server = Self::run(request, plan.network, port).await?;
        let host = match plan.network {
            Network::Own => {
                let host = server.container()?.get_host();
                bounded("asking for the host of the container", QUESTION, host).await?.to_string()
            }
            Network::Host => HOST.to_owned(),
        };
        let endpoint = plan.endpoint(&host, port)?;
        let identity = server.wait_until_ready(&endpoint.own, port).await?;
        Ok((server, endpoint, identity))
    }

    /// Starts a sentinel on this port, with what is to stand in its file, and waits until it answers.
    pub(super) async fn sentinel(text: &str, client: &Client, port: u16) -> Result<Self, TestRedisError> {
        let file = format!("{FOLDER}/sentinel.conf");
        let command = ["redis-server", &file, "--sentinel"].map(str::to_owned);
        // The sentinel, which may run as another user, writes into it.
        let files = [(file, CopyDataSource::from(text.as_bytes().to_vec()), 0o666)];
        let sentinel = Self::run(request(command, files), Network::Host, port).await?;
        sentinel.wait_until_ready(client, port).await?;
        Ok(sentinel)
    }

    async fn run(
        mut request: ContainerRequest<GenericImage>,
        network: Network,
        port: u16,
    ) -> Result<Self, TestRedisError> {
        let name = format!("group-redis-test-{}", uuid::Uuid::new_v4());
        request = request.with_container_name(&name);
        if network == Network::Host {
            request = request.with_network("host");
        }
        // Before the container, so that no moment is left in which a killed test leaves one.
        let guard = guard::command(SCRIPT).arg(&name).spawn();
        let guard = guard.map_err(|error| TestRedisError::refused("starting the guard", error))?;
        let mut server = Self { container: None, guard: Some(guard), network };
        let container = bounded("starting a container", ACTION, request.start()).await;
        server.container = Some(container.map_err(|error| on_port(error, port))?);
        Ok(server)
    }

    fn dismiss_guard(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            guard::dismiss(&mut guard);
        }
    }

    fn container(&self) -> Result<&ContainerAsync<GenericImage>, TestRedisError> {
        self.container.as_ref().ok_or(TestRedisError::Stopped("reach the container"))
    }

    async fn wait_until_ready(&self, client: &Client, port: u16) -> Result<Identity, TestRedisError> {
        let container = self.container()?;
        let is_there = async || {
            if !bounded("asking for the container", QUESTION, container.is_running()).await? {
                let text = text_of(container).await;
                let is_taken = log::is_port_taken(&text, port);
                let line = text.trim().replace('\n', " | ");
                return Err(if is_taken { TestRedisError::PortTaken(port) } else { TestRedisError::ended(&line) });
            }
            // In the network of this machine another program may have the port.
            let is_held = self.network == Network::Own || log::listens(&text_of(container).await);
            Ok(if is_held { Port::Reserved } else { Port::Unknown })
        };
        probe::wait_until_ready(client, is_there).await
    }

    /// Removes the container with its data.
    pub(super) async fn remove(mut self) -> Result<(), TestRedisError> {
        if let Some(container) = self.container.take() {
            bounded("removing the container", ACTION, container.rm()).await?;
            self.dismiss_guard();
        }
        Ok(())
    }

    /// Ends the server with no time to save.
    pub(super) async fn kill(&self) -> Result<(), TestRedisError> {
        let engine = bounded("looking for a Docker engine", QUESTION, docker_client_instance()).await?;
        bounded("killing the server", ACTION, engine.kill_container(self.container()?.id(), None)).await
    }

    /// Starts a server that is about to end, once it has, on the data that it saved.
    pub(super) async fn start_again(&self, endpoint: &Endpoint, port: u16) -> Result<(), TestRedisError> {
        let container = self.container()?;
        let deadline = Instant::now() + ACTION;
        while bounded("asking for the container", QUESTION, container.is_running()).await? {
            if Instant::now() >= deadline {
                return Err(TestRedisError::Timeout("the end of the server", ACTION, "it still runs".to_owned()));
            }
            sleep(PAUSE).await;
        }
        let start = async || {
            let started = bounded("starting the container again", ACTION, container.start()).await;
            started.map_err(|error| on_port(error, port))
        };
        launch::once_it_is_free(start).await?;
        self.wait_until_ready(&endpoint.own, port).await.map(drop)
    }

    pub(super) async fn pause(&self) -> Result<(), TestRedisError> {
        bounded("pausing the container", ACTION, self.container()?.pause()).await
    }

    pub(super) async fn unpause(&self) -> Result<(), TestRedisError> {
        bounded("unpausing the container", ACTION, self.container()?.unpause()).await
    }
}

/// The engine says in words that a port is taken.
fn on_port(error: TestRedisError, port: u16) -> TestRedisError {
    let words = error.to_string();
    let taken = words.contains("already allocated") || words.contains("already in use");
    if taken { TestRedisError::PortTaken(port) } else { error }
}

/// The log of the container.
async fn text_of(container: &ContainerAsync<GenericImage>) -> String {
    let log = async {
        let mut log = container.stdout_to_vec().await?;
        log.extend(container.stderr_to_vec().await?);
        Ok::<_, TestcontainersError>(log)
    };
    match bounded("reading the log of the container", QUESTION, log).await {
        Ok(log) => String::from_utf8_lossy(&log).into_owned(),
        Err(error) => error.to_string(),
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            // Not in the test's runtime: there may be none, and whatever flavour it is, it must not be blocked on itself.
            let removal =
                std::thread::spawn(move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        runtime.block_on(async { matches!(timeout(REMOVAL, container.rm()).await, Ok(Ok(()))) })
                    }
                    Err(_) => {
                        // Its own way to be dropped needs a runtime.
                        std::mem::forget(container);
                        false
                    }
                });
            if removal.join().unwrap_or(false) {
                self.dismiss_guard();
            }
        }
        // It removes what a start that failed or was given up has left.
        if let Some(guard) = &mut self.guard {
            guard::end(guard, REMOVAL);
        }
    }
}
