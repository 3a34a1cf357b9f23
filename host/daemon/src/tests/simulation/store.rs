//! Access to the store for the world outside the daemon: a connection that never fails.

use xenplug_xenstore::{Backoff, Client, Error, Options, Path, Permission, Transaction, Watch};

use super::world::World;

/// A connection to the store that never fails.
#[derive(Clone)]
pub(super) struct StoreAccess(Client);

/// Nodes of a directory with their values.
pub(super) type Nodes = Vec<(&'static str, String)>;

impl StoreAccess {
    pub(super) async fn new(world: &World) -> Self {
        let mut options = Options::default();
        options.seed = Some(world.seed);
        let endpoint = world.server.transport(0, None).endpoint();
        Self(
            Client::connect_with(endpoint, options)
                .await
                .expect("the server is here"),
        )
    }

    pub(super) fn client(&self) -> &Client {
        &self.0
    }

    pub(super) async fn read(&self, path: &str) -> Option<String> {
        match self.0.read(&at(path)).await {
            Ok(value) => String::from_utf8(value).ok(),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    pub(super) async fn number(&self, path: &str) -> u8 {
        self.read(path)
            .await
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    pub(super) async fn children(&self, path: &str) -> Vec<String> {
        match self.0.directory(&at(path)).await {
            Ok(children) => children,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    pub(super) async fn remove(&self, path: &str) {
        match self.0.rm(&at(path)).await {
            Err(error) if !error.is_not_found() => panic!("{path}: {error}"),
            _ => {}
        }
    }

    pub(super) async fn watch(&self, path: &str) -> Watch {
        self.0.watch(&at(path)).await.expect("a watch is set")
    }

    /// Writes one node if another still has a value.
    pub(super) async fn write_if(&self, (node, value): (&str, &str), to: (&str, &str)) -> bool {
        self.transaction(async |transaction| {
            match transaction.read(&at(node)).await {
                Ok(now) if now == value.as_bytes() => {}
                Ok(_) => return Ok(false),
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) => return Err(error),
            }
            transaction.write(&at(to.0), to.1).await?;
            Ok(true)
        })
        .await
    }

    /// Creates directories in one transaction in the place of older ones, with permissions for all their nodes.
    pub(super) async fn make(&self, directories: &[(&str, &Nodes, &[Permission])]) {
        self.transaction(async |transaction| {
            for (path, nodes, permissions) in directories {
                let directory = at(path);
                match transaction.rm(&directory).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
                transaction.mkdir(&directory).await?;
                transaction.set_permissions(&directory, permissions).await?;
                for (name, value) in *nodes {
                    transaction.write(&directory.join(name)?, value).await?;
                }
            }
            Ok(())
        })
        .await;
    }

    pub(super) async fn transaction<T>(&self, act: impl AsyncFnMut(&Transaction) -> Result<T, Error>) -> T {
        let patient = Backoff {
            attempts: 1000,
            ..Backoff::default()
        };
        self.0.transaction(&patient, act).await.expect("the store takes it")
    }
}

pub(super) fn at(path: &str) -> Path {
    path.parse().expect("a path")
}
