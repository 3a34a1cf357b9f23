//! Measures round trips against the store that `XENSTORED_PATH` names: `cargo run --release --example latency`.
//!
//! It makes a directory of its own, `/xenplug-latency`, and removes it.
#![allow(clippy::print_stdout, reason = "its purpose is to print")]

use std::time::{Duration, Instant};

use xenplug_xenstore::{Backoff, Client, Endpoint, Error, Path, Request};

const ROUNDS: u32 = 2000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let client = Client::connect(Endpoint::from_env()).await?;
    let home: Path = "/xenplug-latency".parse()?;
    let node = |number: usize| home.join(&format!("node-{number}"));
    for number in 0..14 {
        client.write(&node(number)?, format!("value {number}")).await?;
    }
    let first = node(0)?;
    let reads = (0..16)
        .map(|number| Ok(Request::Read(node(number % 14)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let writes = (0..4)
        .map(|number| Ok(Request::Write(node(number)?, b"x".to_vec())))
        .collect::<Result<Vec<_>, Error>>()?;
    let retry = Backoff::default();

    measure("read", async || client.read(&first).await.map(drop)).await?;
    measure("write", async || client.write(&first, "x").await).await?;
    measure("batch of 16 reads", async || {
        client.batch(reads.clone()).await.map(drop)
    })
    .await?;
    measure("snapshot of 14 children", async || {
        client.snapshot(&home).await.map(drop)
    })
    .await?;
    measure("publish: transaction of 1 read and 4 writes", async || {
        client
            .transaction(&retry, async |transaction| {
                let requests = [vec![Request::Read(first.clone())], writes.clone()].concat();
                transaction.batch(requests).await.map(drop)
            })
            .await
    })
    .await?;
    client.rm(&home).await
}

async fn measure(what: &str, mut f: impl AsyncFnMut() -> Result<(), Error>) -> Result<(), Error> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        f().await?;
        times.push(start.elapsed());
    }
    times.sort();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let [median, tail] = [times[times.len() / 2], times[times.len() * 99 / 100]];
    println!(
        "{what:<45} median {:7.1} us, 99 % {:7.1} us",
        micros(median),
        micros(tail)
    );
    Ok(())
}
