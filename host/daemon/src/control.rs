//! The control socket: status, metrics and scripts' calls over HTTP, for root alone.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::SystemTime};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use xenplug_control as answer;
use xenplug_xenbus::{Mode, VifType};

use crate::{context::DaemonContext, script};

/// Binds the socket. One that a dead daemon left is replaced: the journal's lock says that no other daemon lives.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is to end, and what was asked before that.
pub(crate) async fn serve(listener: UnixListener, host: Arc<DaemonContext>, end: CancellationToken) -> io::Result<()> {
    let app = Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/script", post(call))
        .with_state(host);
    axum::serve(listener, app)
        .with_graceful_shutdown(end.cancelled_owned())
        .await
}

async fn call(State(host): State<Arc<DaemonContext>>, body: Bytes) -> impl IntoResponse {
    match serde_json::from_slice(&body) {
        Ok(call) => Ok(Json(script::answer(&host, call).await)),
        Err(error) => Err((StatusCode::BAD_REQUEST, error.to_string())),
    }
}

async fn metrics(State(host): State<Arc<DaemonContext>>) -> impl IntoResponse {
    let kind = [(
        header::CONTENT_TYPE,
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )];
    let backoffs: Vec<(String, usize)> = host
        .plugins
        .current()
        .serving
        .iter()
        .map(|serving| {
            let active = host.plugins.backoffs.active(&serving.plugin);
            (serving.plugin.name().to_owned(), active.len())
        })
        .collect();
    match host.metrics.encode(&host.registry.views(), &backoffs) {
        Ok(text) => (StatusCode::OK, kind, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string()),
    }
}

async fn status(State(host): State<Arc<DaemonContext>>) -> Json<answer::Status> {
    let devices = host
        .registry
        .views()
        .into_iter()
        .map(|(part, view)| answer::Device {
            kind: part.device.kind.to_string(),
            frontend: part.device.frontend.0,
            devid: part.device.devid.0,
            emulated: part.vif_type == VifType::Emulated,
            vm: view.vm,
            plugin: view.plugin,
            state: view.phase.as_str().to_owned(),
            since: view
                .since
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
            held: view.held,
            error: view.error,
        })
        .collect();
    let plugins = host
        .plugins
        .current()
        .serving
        .iter()
        .map(|serving| answer::Plugin {
            name: serving.plugin.name().to_owned(),
            summary: serving.plugin.summary(),
            kinds: serving.kinds.iter().map(ToString::to_string).collect(),
            scripts: serving.scripts.clone(),
            backoffs: host.plugins.backoffs.active(&serving.plugin),
            imports: serving
                .plugin
                .imports()
                .iter()
                .map(|interface| interface.name().to_owned())
                .collect(),
        })
        .collect();
    Json(answer::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: match host.mode {
            Mode::DriverDomain => "driver-domain",
            Mode::Dom0 => "dom0",
        }
        .to_owned(),
        domain: host.own.0,
        store: answer::Store {
            endpoint: host.client.endpoint().to_string(),
            connected: host.client.is_connected(),
        },
        plugins,
        devices,
    })
}
