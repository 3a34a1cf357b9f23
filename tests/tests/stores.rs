//! The client on the real xenstored, and foreign clients on the embedded store: each side checks the other.

use std::{
    env,
    io::{BufRead, BufReader},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use tokio::{runtime::Runtime, time::timeout};
use xenplug_store_server::{Options, Server, suite};
use xenplug_tests::harness::{DebianRoot, Xenstored};
use xenplug_xenstore::Endpoint;
use xenstore_rs::{AsyncWatch, AsyncXs, tokio::XsTokio};

/// Environment variable of the process that [`foreign_client_works_on_both_stores`] starts.
const CHILD: &str = "XENPLUG_TEST_FOREIGN_CLIENT";

/// Cases that do not hold on the xenstored of one release of Debian: version and case. The xenstored 4.20 of Debian 13
/// accepts from domain 0 a path of 2,049 bytes outside of domains' homes, which 4.17 refuses.
const DIFFERENCES: &[(u32, &str)] = &[(13, "overlong_path_is_einval")];

#[test]
fn store_suite_passes_on_the_real_xenstored() -> Result<()> {
    let root = DebianRoot::find()?;
    let xenstored = Xenstored::start(&root)?;
    let endpoint = Endpoint::Socket(xenstored.socket());
    let runtime = Runtime::new()?;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(suite::every_case(endpoint.clone()))
    }));
    let differs: Vec<_> = DIFFERENCES
        .iter()
        .filter(|(version, _)| *version == root.version())
        .collect();
    let Err(panic) = ended else {
        ensure!(differs.is_empty(), "listed, and no difference: {differs:?}");
        return Ok(());
    };
    let message = panic.downcast_ref::<String>().context("a panic with another message")?;
    let names: Vec<_> = differs.iter().map(|(_, name)| *name).collect();
    let expected = format!("{} cases failed against {endpoint}: {names:?}", names.len());
    ensure!(!differs.is_empty() && *message == expected, "{message}");
    Ok(())
}

#[test]
fn debian_tools_work_on_the_embedded_store() -> Result<()> {
    let root = DebianRoot::find()?;
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("socket");
    let runtime = Runtime::new()?;
    let _server = runtime.block_on(async { Server::bind(&socket, Options::default()) })?;
    let tool = |name: &str| {
        let mut tool = root.command(&format!("usr/bin/{name}"));
        tool.env("XENSTORED_PATH", &socket);
        tool
    };
    let run = |name: &str, arguments: &[&str]| -> Result<String> {
        let done = tool(name).args(arguments).output()?;
        ensure!(
            done.status.success(),
            "{name} {arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(String::from_utf8(done.stdout)?)
    };

    let mut watch = tool("xenstore-watch").arg("/test").stdout(Stdio::piped()).spawn()?;
    let mut events = BufReader::new(watch.stdout.take().context("it has an output")?).lines();
    assert_eq!(events.next().context("no first event")??, "/test");
    run("xenstore-write", &["/test/a/b", "value", "/test/c", "other"])?;
    assert_eq!(events.next().context("no event")??, "/test/a/b");
    watch.kill()?;
    watch.wait()?;

    assert_eq!(run("xenstore-read", &["/test/a/b"])?, "value\n");
    assert_eq!(run("xenstore-list", &["/test"])?, "a\nc\n");
    assert_eq!(
        run("xenstore-ls", &["/test"])?,
        "a = \"\"\n b = \"value\"\nc = \"other\"\n"
    );
    run("xenstore-chmod", &["/test/c", "n3", "r5"])?;
    ensure!(run("xenstore-ls", &["-p", "/test"])?.contains("(n3,r5)"));
    run("xenstore-exists", &["/test/c"])?;
    run("xenstore-rm", &["/test/a"])?;
    ensure!(run("xenstore-exists", &["/test/a"]).is_err());
    Ok(())
}

#[test]
fn foreign_client_works_on_both_stores() -> Result<()> {
    if env::var_os(CHILD).is_some() {
        return Runtime::new()?.block_on(foreign_client());
    }
    let xenstored = Xenstored::start(&DebianRoot::find()?)?;
    in_a_child(&xenstored.socket())?;
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("socket");
    let runtime = Runtime::new()?;
    let _server = runtime.block_on(async { Server::bind(&socket, Options::default()) })?;
    in_a_child(&socket)
}

/// Runs the test in a child process: the foreign client takes the socket from the environment, which a process with
/// threads must not change.
fn in_a_child(socket: &Path) -> Result<()> {
    let child = Command::new(env::current_exe()?)
        .args(["--exact", "foreign_client_works_on_both_stores"])
        .env(CHILD, "1")
        .env("XENSTORED_PATH", socket)
        .output()?;
    ensure!(
        child.status.success(),
        "on {}: {}",
        socket.display(),
        String::from_utf8_lossy(&child.stdout)
    );
    Ok(())
}

/// Uses the client and the watches of xenstore-rs.
async fn foreign_client() -> Result<()> {
    let store = XsTokio::new().await?;
    let mut changes = AsyncWatch::watch(&store, "/tool/foreign").await?;
    let soon = Duration::from_secs(5);
    assert_eq!(timeout(soon, changes.next()).await?.as_deref(), Some("/tool/foreign"));
    store.write("/tool/foreign/a", "value").await?;
    assert_eq!(timeout(soon, changes.next()).await?.as_deref(), Some("/tool/foreign/a"));
    assert_eq!(&*store.read("/tool/foreign/a").await?, "value");
    assert_eq!(store.directory("/tool/foreign").await?, vec!["a".into()]);
    store.rm("/tool/foreign").await?;
    let gone = store.read("/tool/foreign/a").await;
    assert_eq!(gone.map_err(|error| error.kind()), Err(std::io::ErrorKind::NotFound));
    Ok(())
}
