;; Lets go of a source twice.
(module
  (import "xen:hotplug/block@0.1.0" "[static]source.open" (func $open (param i32 i32 i32 i32)))
  (import "xen:hotplug/block@0.1.0" "[resource-drop]source" (func $drop (param i32)))
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 4096))
  ;; The description: summary, kinds and scripts as addresses and lengths, and `disconnects`.
  (data (i32.const 16) "\00\01\00\00\19\00\00\00\30\00\00\00\01\00\00\00\38\00\00\00\01\00\00\00\00")
  (data (i32.const 48) "\80\00\00\00\03\00\00\00\83\00\00\00\05\00\00\00")
  (data (i32.const 128) "vbdblock")
  (data (i32.const 256) "lets go of a source twice")
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
    (local $node i32)
    ;; The nodes are the eighth and ninth: the one whose name has six letters is `params`.
    (local.set $node (local.get 7))
    (block $found
      (loop $again
        (br_if $found (i32.and
          (i32.eq (i32.load (i32.add (local.get $node) (i32.const 4))) (i32.const 6))
          (i32.eq (i32.load (i32.load (local.get $node))) (i32.const 0x61726170))))
        (local.set $node (i32.add (local.get $node) (i32.const 16)))
        (br $again)))
    ;; Its source, for reading.
    (call $open
      (i32.load (i32.add (local.get $node) (i32.const 8)))
      (i32.load (i32.add (local.get $node) (i32.const 12)))
      (i32.const 0)
      (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then (return (i32.const 1024))))
    (call $drop (i32.load (i32.const 2052)))
    (call $drop (i32.load (i32.const 2052)))
    ;; All zeros: a connection without nodes.
    (i32.const 1024))
  (func (export "xen:hotplug/handler@0.1.0#disconnect")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (unreachable)))
