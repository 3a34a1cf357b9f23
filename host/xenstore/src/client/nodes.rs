//! Requests about single nodes, outside of a transaction and within one.

/// Implements the requests about single nodes for a type whose `scope` returns its session and transaction.
macro_rules! about_nodes {
    ($type:ty) => {
        impl $type {
            /// Reads the value of a node.
            pub async fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
                self.ask(Request::Read(path.clone())).await.map(Reply::into_value)
            }

            /// Lists the names of a node's children, in the store's order.
            pub async fn directory(&self, path: &Path) -> Result<Vec<String>, Error> {
                let (session, within) = self.scope();
                directory::list(session, within, path).await
            }

            /// Sets the value of a node. Creates it and its missing ancestors.
            pub async fn write(&self, path: &Path, value: impl AsRef<[u8]>) -> Result<(), Error> {
                self.ask(Request::Write(path.clone(), value.as_ref().to_vec()))
                    .await
                    .map(drop)
            }

            /// Creates a node and its missing ancestors; an existing node is left as it is.
            pub async fn mkdir(&self, path: &Path) -> Result<(), Error> {
                self.ask(Request::Mkdir(path.clone())).await.map(drop)
            }

            /// Removes a node and all below it. An absent node is no error, an absent parent is `ENOENT`.
            pub async fn rm(&self, path: &Path) -> Result<(), Error> {
                self.ask(Request::Rm(path.clone())).await.map(drop)
            }

            /// Reads the permissions of a node, the first of which names the owner.
            pub async fn permissions(&self, path: &Path) -> Result<Vec<Permission>, Error> {
                match self.ask(Request::Permissions(path.clone())).await? {
                    Reply::Permissions(permissions) => Ok(permissions),
                    _ => Ok(Vec::new()),
                }
            }

            /// Sets the permissions of a node, the first of which names the owner.
            pub async fn set_permissions(&self, path: &Path, permissions: &[Permission]) -> Result<(), Error> {
                self.ask(Request::SetPermissions(path.clone(), permissions.to_vec()))
                    .await
                    .map(drop)
            }

            async fn ask(&self, request: Request) -> Result<Reply, Error> {
                let (session, within) = self.scope();
                session.request(request, within).await
            }
        }
    };
}

pub(super) use about_nodes;
