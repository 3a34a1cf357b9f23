//! The control socket: status, metrics and scripts' calls over HTTP, for root alone.

pub(crate) mod script;

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

use self::script::ScriptDesk;
use crate::{context::DaemonContext, device::Registry, metrics::Metrics, plugins::Plugins};

/// Binds the socket. The socket of a dead daemon is replaced: the journal's lock says that no other daemon lives.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Everything that the control socket shows and serves.
pub(crate) struct Control {
    pub(crate) context: Arc<DaemonContext>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) plugins: Arc<Plugins>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) scripts: ScriptDesk,
}

/// Serves until `end`, and answers the requests that came before it.
pub(crate) async fn serve(listener: UnixListener, control: Arc<Control>, end: CancellationToken) -> io::Result<()> {
    let app = Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/script", post(call))
        .with_state(control);
    axum::serve(listener, app)
        .with_graceful_shutdown(end.cancelled_owned())
        .await
}

async fn call(State(control): State<Arc<Control>>, body: Bytes) -> impl IntoResponse {
    match serde_json::from_slice(&body) {
        Ok(call) => Ok(Json(control.scripts.answer(call).await)),
        Err(error) => Err((StatusCode::BAD_REQUEST, error.to_string())),
    }
}

async fn metrics(State(control): State<Arc<Control>>) -> impl IntoResponse {
    let kind = [(
        header::CONTENT_TYPE,
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )];
    let backoffs: Vec<(String, usize)> = control
        .plugins
        .current()
        .serving
        .iter()
        .map(|serving| {
            let active = control.plugins.backoffs.active(&serving.plugin);
            (serving.plugin.name().to_owned(), active.len())
        })
        .collect();
    let views = control.registry.views();
    let devices = views
        .iter()
        .map(|(instance, view)| (instance.device.kind.clone(), view.phase));
    match control.metrics.encode(devices, &backoffs) {
        Ok(text) => (StatusCode::OK, kind, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string()),
    }
}

async fn status(State(control): State<Arc<Control>>) -> Json<answer::Status> {
    let devices = control
        .registry
        .views()
        .into_iter()
        .map(|(instance, view)| answer::Device {
            kind: instance.device.kind.to_string(),
            frontend: instance.device.frontend.0,
            devid: instance.device.devid.0,
            emulated: instance.vif_type == VifType::Emulated,
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
    let plugins = control
        .plugins
        .current()
        .serving
        .iter()
        .map(|serving| answer::Plugin {
            name: serving.plugin.name().to_owned(),
            summary: serving.plugin.summary(),
            kinds: serving.kinds.iter().map(ToString::to_string).collect(),
            scripts: serving.scripts.clone(),
            backoffs: control.plugins.backoffs.active(&serving.plugin),
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
        mode: match control.context.mode {
            Mode::DriverDomain => "driver-domain",
            Mode::Dom0 => "dom0",
        }
        .to_owned(),
        domain: control.context.own.0,
        store: answer::Store {
            endpoint: control.context.store.endpoint().to_string(),
            connected: control.context.store.is_connected(),
        },
        plugins,
        devices,
    })
}
