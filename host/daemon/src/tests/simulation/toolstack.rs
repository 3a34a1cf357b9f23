//! The toolstack: creates guests and devices as libxl does (tools/libs/light/libxl_device.c), waits for them up to ten
//! seconds, and reuses each domain id.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use tokio::{
    task::spawn_local,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use xenplug_control::script::{Call, ScriptAction};
use xenplug_xenbus::{BackendPath, DeviceKey, DomId, Kind, Mode};
use xenplug_xenstore::Permission;

use super::{
    chance::Chance,
    guest::{Behaviour, frontend},
    store::{Nodes, StoreAccess, at},
    world::{CreatedDevice, World},
};

/// The timeouts of libxl for a backend (`LIBXL_INIT_TIMEOUT`, `LIBXL_DESTROY_TIMEOUT`) and for a script
/// (`LIBXL_HOTPLUG_TIMEOUT`).
const BACKEND_TIMEOUT: Duration = Duration::from_secs(10);
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(40);

/// The toolstack's state for one domain id.
pub(super) struct Slot {
    world: Rc<World>,
    store: StoreAccess,
    chance: Chance,
    domain: DomId,
    /// True if an earlier guest had it.
    used: bool,
    /// The devices of the current guest, with the tokens that end their frontends.
    devices: BTreeMap<DeviceKey, CancellationToken>,
}

impl Slot {
    pub(super) async fn new(world: Rc<World>, domain: DomId) -> Self {
        Self {
            store: StoreAccess::new(&world).await,
            chance: Chance::of(world.seed, &format!("toolstack {domain}")),
            world,
            domain,
            used: false,
            devices: BTreeMap::new(),
        }
    }

    /// Creates guests one after the other. The last one, announced by `settled`, lives until `end`.
    pub(super) async fn run(mut self, settled: CancellationToken, end: CancellationToken) {
        for life in 1..=self.world.plan.lives {
            let keys = ["vbd/D/51712", "vbd/D/51728", "vif/D/0"];
            let keys = keys.map(|key| key.replace('D', &self.domain.to_string()));
            let devices = keys.iter().filter(|_| self.chance.permille(700));
            let devices: Vec<_> = devices.map(|key| key.parse().expect("a device")).collect();
            self.create(devices).await;
            for _ in 0..self.chance.below(6) {
                self.pause().await;
                self.act().await;
            }
            if life == self.world.plan.lives {
                settled.cancel();
                end.cancelled().await;
            } else {
                self.pause().await;
            }
            self.destroy().await;
        }
    }

    async fn pause(&self) {
        sleep(match self.chance.below(3) {
            0 => Duration::ZERO,
            1 => self.chance.upto(200),
            _ => self.chance.upto(20_000),
        })
        .await;
    }

    fn home(&self) -> String {
        format!("/local/domain/{}", self.domain)
    }

    /// Creates a guest with devices.
    pub(super) async fn create(&mut self, devices: Vec<DeviceKey>) {
        let world = Rc::clone(&self.world);
        let vm = world.count.get() + 1;
        world.count.set(vm);
        world.say(format!("guest {} is created, /vm/{vm}", self.domain));
        let nodes: Nodes = vec![("name", format!("guest{vm}")), ("vm", format!("/vm/{vm}"))];
        let mut permissions = vec![Permission::none(0), Permission::read(self.domain.0)];
        if world.plan.vm_readable && world.own.0 != 0 {
            permissions.push(Permission::read(world.own.0));
        }
        self.store.make(&[(&self.home(), &nodes, &permissions)]).await;
        // Until its domain is introduced, a guest with a reused id is not distinguished from the one before.
        let introduce_first = self.chance.permille(500) || self.used;
        self.used = true;
        if introduce_first {
            self.introduce().await;
        }
        for key in devices {
            self.attach(key).await;
        }
        if !introduce_first {
            self.introduce().await;
        }
    }

    async fn introduce(&self) {
        let introduced = self.store.client().introduce(self.domain.0, 1, 1).await;
        introduced.expect("domain 0 may");
    }

    /// Changes one of the guest's devices.
    async fn act(&mut self) {
        let keys: Vec<DeviceKey> = self.devices.keys().cloned().collect();
        let Some(key) = (!keys.is_empty()).then(|| keys[self.chance.below(keys.len() as u64) as usize].clone()) else {
            return;
        };
        match self.chance.below(4) {
            0 => self.detach(&key).await,
            1 => {
                self.detach(&key).await;
                self.attach(key).await;
            }
            // It is recreated without notice.
            2 => self.attach(key).await,
            _ => {
                self.world.say(format!("{key}: somebody removes its directory"));
                self.end(&key);
                self.store.remove(&self.world.backend(&key)).await;
            }
        }
    }

    /// Creates a device, and waits until it is connected.
    pub(super) async fn attach(&mut self, key: DeviceKey) {
        self.make(&key).await;
        let world = Rc::clone(&self.world);
        let asked = (world.plan.mode == Mode::Dom0)
            .then(|| spawn_local(script(Rc::clone(&world), key.clone(), ScriptAction::Add)));
        let recreated = self.chance.permille(400);
        if recreated {
            // It is recreated while its handler runs, or while the result is published.
            sleep(self.chance.upto(2 * world.plan.worker + world.plan.message)).await;
            self.make(&key).await;
        }
        if let Some(asked) = asked {
            asked.await.expect("a script ends");
        } else if world.plan.is_quiet() && world.plan.message <= 50 {
            // The handler of its predecessor must end, and be undone.
            let limit = if recreated {
                BACKEND_TIMEOUT.max(world.plan.recreation())
            } else {
                BACKEND_TIMEOUT
            };
            let status = format!("{}/hotplug-status", world.backend(&key));
            let connected = |status: Option<&str>| status == Some("connected");
            if !self.until_within(limit, &status, connected).await {
                world.wrong(format!(
                    "{key} is not connected within {limit:?}, although nothing failed"
                ));
            }
        }
    }

    /// Creates a device, and waits for its backend.
    pub(super) async fn make(&mut self, key: &DeviceKey) {
        self.end(key);
        let world = Rc::clone(&self.world);
        let number = world.count.get() + 1;
        world.count.set(number);
        let params = format!("/srv/{number}.img");
        world.host.add_file(&params, 1 << 20);
        let behaviour = self.chance.pick(&[
            Behaviour::Regular,
            Behaviour::Regular,
            Behaviour::Slow,
            Behaviour::Reconnecting,
            Behaviour::Silent,
        ]);
        world.say(format!("{key} is created with {params}; the frontend is {behaviour:?}"));
        let made = CreatedDevice {
            number,
            params: params.clone(),
            harmed: false,
            jumps: world.jumps.get(),
        };
        world.made.borrow_mut().insert(key.clone(), made);
        self.write(key, &params).await;
        let dead = CancellationToken::new();
        self.devices.insert(key.clone(), dead.clone());
        spawn_local(frontend(
            Rc::clone(&world),
            self.store.clone(),
            key.clone(),
            behaviour,
            dead,
        ));
        let state = format!("{}/state", world.backend(key));
        self.until(&state, |state| matches!(state, Some("2" | "4"))).await;
    }

    async fn write(&self, key: &DeviceKey, params: &str) {
        let (own, domain) = (self.world.own, self.domain);
        let backend = self.world.backend(key);
        let path = BackendPath {
            backend: own,
            key: key.clone(),
        };
        let frontend = path.frontend_path();
        let common = [
            ("frontend", frontend.clone()),
            ("frontend-id", domain.to_string()),
            ("online", "1".to_owned()),
            ("state", "1".to_owned()),
        ];
        let of_kind: Nodes = match key.kind == Kind::VIF {
            true => vec![
                ("script", "/etc/xen/scripts/vif-bridge".to_owned()),
                ("bridge", "xenbr0".to_owned()),
                ("mac", format!("00:16:3e:00:00:{:02x}", domain.0)),
                ("handle", key.devid.to_string()),
                ("hotplug-status", String::new()),
            ],
            false => vec![
                ("script", "/etc/xen/scripts/block".to_owned()),
                ("params", params.to_owned()),
                ("mode", "w".to_owned()),
                ("type", "phy".to_owned()),
            ],
        };
        let back: Nodes = common.into_iter().chain(of_kind).collect();
        let front: Nodes = vec![
            ("backend", backend.clone()),
            ("backend-id", own.to_string()),
            ("state", "1".to_owned()),
        ];
        self.store
            .make(&[
                (
                    &frontend,
                    &front,
                    &[Permission::none(domain.0), Permission::read(own.0)],
                ),
                (&backend, &back, &[Permission::none(own.0), Permission::read(domain.0)]),
            ])
            .await;
    }

    /// Ends the guest's frontend; nobody wants the device any longer.
    fn end(&mut self, key: &DeviceKey) {
        self.world.made.borrow_mut().remove(key);
        if let Some(dead) = self.devices.remove(key) {
            dead.cancel();
        }
    }

    /// Asks for a device's end, waits for it, and removes what the toolstack has to remove.
    pub(super) async fn detach(&mut self, key: &DeviceKey) {
        let world = Rc::clone(&self.world);
        world.say(format!("{key} is to be removed"));
        world.made.borrow_mut().remove(key);
        let backend = world.backend(key);
        let state = format!("{backend}/state");
        let asked = self
            .store
            .transaction(async |transaction| {
                match transaction.read(&at(&state)).await {
                    Err(error) if error.is_not_found() => return Ok(false),
                    Err(error) => return Err(error),
                    Ok(now) => {
                        transaction.write(&at(&format!("{backend}/online")), "0").await?;
                        if now != b"6" {
                            transaction.write(&at(&state), "5").await?;
                        }
                    }
                }
                Ok(true)
            })
            .await;
        let patient = !self.chance.permille(200);
        if asked && patient {
            self.until(&state, |state| matches!(state, None | Some("6"))).await;
        }
        match world.plan.mode {
            Mode::Dom0 => script(Rc::clone(&world), key.clone(), ScriptAction::Remove).await,
            Mode::DriverDomain if patient => drop(self.until(&state, |state| state.is_none()).await),
            Mode::DriverDomain => {}
        }
        self.end(key);
        let path = BackendPath {
            backend: world.own,
            key: key.clone(),
        };
        self.store.remove(&path.frontend_path()).await;
        if world.plan.mode == Mode::Dom0 {
            self.store.remove(&backend).await;
        }
    }

    async fn destroy(&mut self) {
        self.world.say(format!("guest {} is to be destroyed", self.domain));
        if self.chance.permille(300) {
            // It crashes: its frontends end first.
            self.devices.values().for_each(CancellationToken::cancel);
        }
        let keys: Vec<DeviceKey> = self.devices.keys().cloned().collect();
        for key in keys {
            self.detach(&key).await;
        }
        let release_first = self.chance.permille(500);
        if release_first {
            self.release().await;
        }
        self.store.remove(&self.home()).await;
        if !release_first {
            self.release().await;
        }
        self.world.say(format!("guest {} is gone", self.domain));
    }

    async fn release(&self) {
        self.store.client().release(self.domain.0).await.expect("domain 0 may");
    }

    /// Waits until a node satisfies a condition, for as long as libxl does.
    async fn until(&self, path: &str, holds: impl Fn(Option<&str>) -> bool) -> bool {
        self.until_within(BACKEND_TIMEOUT, path, holds).await
    }

    async fn until_within(&self, limit: Duration, path: &str, holds: impl Fn(Option<&str>) -> bool) -> bool {
        let mut watch = self.store.watch(path).await;
        let waiting = async {
            while !holds(self.store.read(path).await.as_deref()) {
                watch.next().await;
            }
        };
        timeout(limit, waiting).await.is_ok()
    }
}

/// Runs a script, whose shim calls the daemon.
async fn script(world: Rc<World>, key: DeviceKey, action: ScriptAction) {
    let call = Call {
        script: if key.kind == Kind::VIF { "vif-bridge" } else { "block" }.to_owned(),
        action,
        backend: format!("backend/{key}"),
        emulated: false,
        parameters: BTreeMap::new(),
    };
    let jumps = world.jumps.get();
    match timeout(SCRIPT_TIMEOUT, world.call(call)).await {
        Ok(answer) => world.say(format!("{key}: {action:?} is answered {answer:?}")),
        Err(_) if world.jumps.get() > jumps => world.say(format!("{key}: {action:?} is killed")),
        Err(_) => world.wrong(format!(
            "{key}: {action:?} is not answered before libxl kills the script"
        )),
    }
}
