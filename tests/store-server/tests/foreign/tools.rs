//! The `xenstore-*` tools of Debian's xenstore-utils on the server.
//!
//! The test finds them in PATH: `cargo xtask test` runs it in a root of Debian packages that has them.

use std::{
    env,
    io::{self, Write},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};
use xenplug_xenstore::{Path, Permission, Request};

use super::Store;

/// Returns the command of a tool, or `None` if it is not installed, which is a failure with `CI=true`.
fn tool(store: &Store, name: &str) -> Option<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let Some(program) = env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|program| program.exists())
    else {
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "{name} is missing");
        // The test harness would capture the output of `eprintln!`.
        let _ = writeln!(io::stderr(), "CANNOT RUN: {name} is not in PATH");
        return None;
    };
    let mut command = Command::new(program);
    command
        .env("XENSTORED_PATH", store.socket())
        .kill_on_drop(true)
        .stdin(Stdio::null());
    Some(command)
}

/// Runs a tool. Returns its output, or its error output after `!`.
async fn run(store: &Store, name: &str, arguments: &[&str]) -> Option<String> {
    let output = tool(store, name)?.args(arguments).output().await.unwrap();
    Some(match output.status.success() {
        true => String::from_utf8(output.stdout).unwrap(),
        false => format!("!{}", String::from_utf8_lossy(&output.stderr)),
    })
}

#[tokio::test]
async fn tools_write_read_list_and_remove() {
    let store = Store::start();
    let Some(written) = run(&store, "xenstore-write", &["/a/b", "one", "/a/c", "two words"]).await else {
        return;
    };
    assert_eq!(written, "");
    for (name, arguments, printed) in [
        ("xenstore-read", &["/a/b", "/a/c"][..], "one\ntwo words\n"),
        ("xenstore-list", &["/a"], "b\nc\n"),
        ("xenstore-exists", &["/a/b"], ""),
        ("xenstore-ls", &["/a"], "b = \"one\"\nc = \"two words\"\n"),
        ("xenstore-chmod", &["/a/b", "n0", "r5"], ""),
        ("xenstore-ls", &["-p", "/a"], "b = \"one\"  . . "),
        ("xenstore-rm", &["/a/b"], ""),
        ("xenstore-list", &["/a"], "c\n"),
        ("xenstore-write", &["relative/d", "three"], ""),
        ("xenstore-read", &["/local/domain/0/relative/d"], "three\n"),
    ] {
        let output = run(&store, name, arguments).await.unwrap();
        assert!(output.starts_with(printed), "{name} {arguments:?}: {output:?}");
    }
    let missing = run(&store, "xenstore-read", &["/missing"]).await.unwrap();
    assert!(
        missing.starts_with('!') && missing.contains("couldn't read path /missing"),
        "{missing}"
    );
    let client = store.connect().await;
    let permissions = client.permissions(&"/a".parse().unwrap()).await.unwrap();
    assert_eq!(permissions, [Permission::none(0)]);
}

#[tokio::test]
async fn tool_lists_more_than_a_message_holds() {
    let store = Store::start();
    let client = store.connect().await;
    let names: Vec<String> = (0..1000).map(|number| format!("a-rather-long-name-{number}")).collect();
    let home: Path = "/long".parse().unwrap();
    let writes = names
        .iter()
        .map(|name| Request::Write(home.join(name).unwrap(), Vec::new()));
    client.batch(writes.collect()).await.unwrap();
    let Some(listed) = run(&store, "xenstore-list", &["/long"]).await else {
        return;
    };
    assert_eq!(listed.lines().collect::<Vec<_>>(), names);
}

#[tokio::test]
async fn tool_watches_a_node() {
    let store = Store::start();
    let Some(mut watch) = tool(&store, "xenstore-watch") else {
        return;
    };
    let mut process = watch.arg("/watched").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let client = store.connect().await;
    let mut next_line = async || {
        let line = tokio::time::timeout(Duration::from_secs(5), lines.next_line()).await;
        line.unwrap().unwrap().unwrap()
    };
    assert_eq!(next_line().await, "/watched");
    client.write(&"/watched/below".parse().unwrap(), "x").await.unwrap();
    assert_eq!(next_line().await, "/watched/below");
    client.rm(&"/watched".parse().unwrap()).await.unwrap();
    assert_eq!(next_line().await, "/watched");
    process.kill().await.unwrap();
    // The store removes the watch of the tool that ended.
    for _ in 0..100 {
        if store.server.stats().watches == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the watch of a client that is gone is still there");
}
