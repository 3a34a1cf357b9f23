;; Traps in the clean-up after its answer.
(module
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 4096))
  ;; The description: summary, kinds and scripts as addresses and lengths, and `disconnects`.
  (data (i32.const 16) "\00\01\00\00\26\00\00\00\30\00\00\00\01\00\00\00\38\00\00\00\01\00\00\00\00")
  (data (i32.const 48) "\80\00\00\00\03\00\00\00\83\00\00\00\05\00\00\00")
  (data (i32.const 128) "vbdblock")
  (data (i32.const 256) "traps in the clean-up after its answer")
  (func (export "cabi_post_xen:hotplug/handler@0.1.0#connect") (param i32)
    (unreachable))
  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    ;; Every 16 bytes from 4096 on: enough for a small device.
    (local.set $at (global.get $next))
    (global.set $next (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 31)) (i32.const -16)))
    (local.get $at))
  (func (export "xen:hotplug/handler@0.1.0#describe") (result i32)
    (i32.const 16))
  (func (export "xen:hotplug/handler@0.1.0#connect")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    ;; All zeros: a connection without nodes.
    (i32.const 1024))
  (func (export "xen:hotplug/handler@0.1.0#disconnect")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (unreachable)))
