//! Traits of xenstore-rs, for programs written against them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use xenstore_rs::{AsyncWatch, AsyncXs};

use super::{handle::Client, inbox::Event, watch::Watch};
use crate::{Error, Path};

impl AsyncXs for Client {
    async fn directory(&self, path: &str) -> io::Result<Vec<Box<str>>> {
        let names = Client::directory(self, &parse(path)?).await?;
        Ok(names.into_iter().map(String::into_boxed_str).collect())
    }

    /// A value that is not UTF-8 is `InvalidData`.
    async fn read(&self, path: &str) -> io::Result<Box<str>> {
        let value = Client::read(self, &parse(path)?).await?;
        let text = String::from_utf8(value).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(text.into_boxed_str())
    }

    async fn write(&self, path: &str, data: &str) -> io::Result<()> {
        Ok(Client::write(self, &parse(path)?, data).await?)
    }

    async fn rm(&self, path: &str) -> io::Result<()> {
        Ok(Client::rm(self, &parse(path)?).await?)
    }
}

impl AsyncWatch for Client {
    /// A [`Event::Resync`] becomes a change of the watched path.
    async fn watch(&self, path: &str) -> io::Result<impl Stream<Item = Box<str>> + Unpin + 'static> {
        Ok(Changes(Client::watch(self, &parse(path)?).await?))
    }
}

/// Stream of the paths of a watch's events.
struct Changes(Watch);

impl Stream for Changes {
    type Item = Box<str>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Box<str>>> {
        self.0.poll(context).map(|event| {
            event.map(|event| match event {
                Event::Changed(path) => path.as_str().into(),
                Event::Resync => self.0.path().as_str().into(),
            })
        })
    }
}

fn parse(path: &str) -> Result<Path, Error> {
    Ok(path.parse()?)
}
