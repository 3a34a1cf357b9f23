;; Traps if there is anything in memory that it has not written.
(module
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 4096))
  ;; The description: summary, kinds and scripts as addresses and lengths, and `disconnects`.
  (data (i32.const 16) "\00\01\00\00\3c\00\00\00\30\00\00\00\01\00\00\00\38\00\00\00\01\00\00\00\00")
  (data (i32.const 48) "\80\00\00\00\03\00\00\00\83\00\00\00\05\00\00\00")
  (data (i32.const 128) "vbdblock")
  (data (i32.const 256) "traps if there is anything in memory that it has not written")
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
    (local $at i32)
    (if (i32.lt_s (memory.grow (i32.const 127)) (i32.const 0)) (then (unreachable)))
    (local.set $at (i32.const 65536))
    (loop $again
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (unreachable)))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $again (i32.lt_u (local.get $at) (i32.const 0x800000))))
    ;; All zeros: a connection without nodes.
    (i32.const 1024))
  (func (export "xen:hotplug/handler@0.1.0#disconnect")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (unreachable)))
