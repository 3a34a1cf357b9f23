//! Requests about single nodes: the same outside of a transaction and within one.

/// Gives a type with a `scope` (its client, and within which transaction) the requests about single nodes.
macro_rules! about_nodes {
    ($type:ty) => {
        impl $type {
            /// A node's value.
            pub async fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
                self.ask(Request::Read(path.clone())).await.map(Reply::into_value)
            }

            /// The names of a node's children, however many there are, in the store's order.
            pub async fn directory(&self, path: &Path) -> Result<Vec<String>, Error> {
                let (client, within) = self.scope();
                directory::list(client, within, path).await
            }

            /// Sets a node's value, and creates it and what is missing above it.
            pub async fn write(&self, path: &Path, value: impl AsRef<[u8]>) -> Result<(), Error> {
                self.ask(Request::Write(path.clone(), value.as_ref().to_vec()))
                    .await
                    .map(drop)
            }

            /// Creates a node if it is missing, and what is missing above it.
            pub async fn mkdir(&self, path: &Path) -> Result<(), Error> {
                self.ask(Request::Mkdir(path.clone())).await.map(drop)
            }

            /// Removes a node and all below it. It need not exist; if its parent does not either, that is `ENOENT`.
            pub async fn rm(&self, path: &Path) -> Result<(), Error> {
                self.ask(Request::Rm(path.clone())).await.map(drop)
            }

            /// A node's permissions, the first of which names the owner.
            pub async fn permissions(&self, path: &Path) -> Result<Vec<Permission>, Error> {
                match self.ask(Request::Permissions(path.clone())).await? {
                    Reply::Permissions(permissions) => Ok(permissions),
                    _ => Ok(Vec::new()),
                }
            }

            /// Sets a node's permissions, the first of which names the owner.
            pub async fn set_permissions(&self, path: &Path, permissions: &[Permission]) -> Result<(), Error> {
                self.ask(Request::SetPermissions(path.clone(), permissions.to_vec()))
                    .await
                    .map(drop)
            }

            /// Makes one request.
            async fn ask(&self, request: Request) -> Result<Reply, Error> {
                let (client, within) = self.scope();
                let replies = client.call(vec![request], within).await?.pop();
                replies.unwrap_or(Err(Error::Disconnected))
            }
        }
    };
}

pub(super) use about_nodes;
