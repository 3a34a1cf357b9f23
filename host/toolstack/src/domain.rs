//! Lookup of domains by id or name.

use xenplug_xenbus::DomId;
use xenplug_xenstore::{Client, Path};

use crate::Error;

/// Finds a domain by its id or its `name` node.
pub(crate) async fn find(client: &Client, text: &str) -> Result<DomId, Error> {
    if let Ok(domain) = text.parse::<DomId>() {
        return Ok(domain);
    }
    let domains: Path = "/local/domain".parse()?;
    let mut found = None;
    for number in client.directory(&domains).await? {
        let Ok(domain) = number.parse::<DomId>() else { continue };
        let name = client.read(&domains.join(&number)?.join("name")?).await;
        if name.is_ok_and(|name| name == text.as_bytes()) {
            if found.is_some() {
                return Err(Error::SeveralDomains(text.to_owned()));
            }
            found = Some(domain);
        }
    }
    found.ok_or_else(|| Error::NoDomain(text.to_owned()))
}
