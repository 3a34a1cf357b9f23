//! Tables, chains and rules as netlink messages (include/uapi/linux/netfilter/nf_tables.h). Numbers are big-endian.

use crate::{
    firewall::rules::{Header, Rule, Rules, Test, Verdict},
    linux::netlink::{Messages, NLM_F_CREATE},
    network::IfName,
};

/// Chain for all frames.
const INGRESS: &str = "ingress";

/// Chain for neighbour advertisements.
const NEIGHBOURS: &str = "neighbours";

// include/uapi/linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_NETDEV: u8 = 5;

const NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const DELTABLE: u16 = NEWTABLE | 2;
const NEWCHAIN: u16 = NEWTABLE | 3;
const NEWRULE: u16 = NEWTABLE | 6;
const DELRULE: u16 = NEWTABLE | 8;
/// Adds a rule after the existing ones.
const NLM_F_APPEND: u16 = 0x800;

/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE` and `NFTA_RULE_TABLE`.
const NFTA_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

const NF_NETDEV_INGRESS: u32 = 0;
/// Priority of `raw`: before other chains at the ingress, so that they see no dropped frame.
const PRIORITY: i32 = -300;

const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_JUMP: i32 = -3;
const NFT_RETURN: i32 = -5;

const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_META_L4PROTO: u32 = 16;
const IPPROTO_FRAGMENT: u8 = 44;
const NFT_EXTHDR_F_PRESENT: u32 = 1;

/// Messages about the table of a link, which the kernel applies as a whole or not at all.
#[derive(Debug)]
pub(super) struct Batch<'l> {
    messages: Messages,
    link: &'l IfName,
    table: String,
}

impl<'l> Batch<'l> {
    pub(super) fn of(link: &'l IfName) -> Self {
        let messages = Messages::one(NFNL_MSG_BATCH_BEGIN, 0, &header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES));
        Self {
            messages,
            link,
            table: format!("xenplug-{link}"),
        }
    }

    /// Deletes the table with its chains and rules. A missing table is an error.
    pub(super) fn delete_table(&mut self) {
        self.message(DELTABLE, 0);
    }

    /// Adds the table and its chains if they do not exist.
    pub(super) fn add_table(&mut self) {
        let link = self.link;
        self.message(NEWTABLE, NLM_F_CREATE);
        self.message(NEWCHAIN, NLM_F_CREATE).text(NFTA_CHAIN_NAME, NEIGHBOURS);
        self.message(NEWCHAIN, NLM_F_CREATE)
            .text(NFTA_CHAIN_NAME, INGRESS)
            .text(NFTA_CHAIN_TYPE, "filter")
            .attribute(NFTA_CHAIN_POLICY, &NF_DROP.to_be_bytes())
            .nest(NFTA_CHAIN_HOOK, |hook| {
                hook.attribute(NFTA_HOOK_HOOKNUM, &NF_NETDEV_INGRESS.to_be_bytes())
                    .attribute(NFTA_HOOK_PRIORITY, &PRIORITY.to_be_bytes())
                    .text(NFTA_HOOK_DEV, link.as_str());
            });
    }

    /// Replaces the rules in the chains.
    pub(super) fn replace_rules(&mut self, rules: &Rules) {
        for (chain, rules) in [(INGRESS, &rules.frames), (NEIGHBOURS, &rules.neighbours)] {
            self.message(DELRULE, 0).text(NFTA_RULE_CHAIN, chain);
            for rule in rules {
                self.message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND)
                    .text(NFTA_RULE_CHAIN, chain)
                    .nest(NFTA_RULE_EXPRESSIONS, |list| write_rule(list, rule));
            }
        }
    }

    /// Ends the batch, and returns the messages to send.
    pub(super) fn end(mut self) -> Messages {
        self.messages.acknowledge_last();
        self.messages
            .begin(NFNL_MSG_BATCH_END, 0, &header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES));
        self.messages
    }

    /// Begins a message, and adds the name of the table.
    fn message(&mut self, kind: u16, flags: u16) -> &mut Messages {
        self.messages.begin(kind, flags, &header(NFPROTO_NETDEV, 0));
        self.messages.text(NFTA_TABLE, &self.table)
    }
}

/// Encodes `struct nfgenmsg`: family, version, resource.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn write_rule(list: &mut Messages, rule: &Rule) {
    for test in &rule.tests {
        match test {
            Test::Bytes {
                header,
                offset,
                mask,
                equal,
                value,
            } => {
                write_payload(list, *header, *offset, value.len());
                if let Some(mask) = mask {
                    write_mask(list, mask);
                }
                write_compare(list, *equal, value);
            }
            Test::Protocol { equal, value } => {
                write_expression(list, "meta", |meta| {
                    meta.attribute(1, &NFT_REG_1.to_be_bytes())
                        .attribute(2, &NFT_META_L4PROTO.to_be_bytes());
                });
                write_compare(list, *equal, &[*value]);
            }
            Test::Fragment => {
                // Register, header, offset, length, flags. The flag loads the presence of the header as one byte.
                write_expression(list, "exthdr", |header| {
                    header
                        .attribute(1, &NFT_REG_1.to_be_bytes())
                        .attribute(2, &[IPPROTO_FRAGMENT])
                        .attribute(3, &0_u32.to_be_bytes())
                        .attribute(4, &1_u32.to_be_bytes())
                        .attribute(5, &NFT_EXTHDR_F_PRESENT.to_be_bytes());
                });
                write_compare(list, true, &[1]);
            }
        }
    }
    write_expression(list, "immediate", |immediate| {
        immediate.attribute(1, &NFT_REG_VERDICT.to_be_bytes()).nest(2, |data| {
            data.nest(NFTA_DATA_VERDICT, |verdict| write_verdict(verdict, rule.verdict));
        });
    });
}

fn write_verdict(into: &mut Messages, verdict: Verdict) {
    let code = match verdict {
        Verdict::Pass => NF_ACCEPT,
        Verdict::Drop => NF_DROP,
        Verdict::CheckNeighbour => NFT_JUMP,
        Verdict::Return => NFT_RETURN,
    };
    into.attribute(NFTA_VERDICT_CODE, &code.to_be_bytes());
    if verdict == Verdict::CheckNeighbour {
        into.text(NFTA_VERDICT_CHAIN, NEIGHBOURS);
    }
}

/// Writes an expression that loads bytes: register, base, offset, length.
fn write_payload(list: &mut Messages, header: Header, offset: u32, length: usize) {
    let base: u32 = match header {
        Header::Link => 0,
        Header::Network => 1,
        Header::Transport => 2,
    };
    write_expression(list, "payload", |payload| {
        payload
            .attribute(1, &NFT_REG_1.to_be_bytes())
            .attribute(2, &base.to_be_bytes())
            .attribute(3, &offset.to_be_bytes())
            .attribute(4, &length_of(length));
    });
}

/// Writes an expression that masks bytes: source and destination registers, length, mask, zero for XOR.
fn write_mask(list: &mut Messages, mask: &[u8]) {
    write_expression(list, "bitwise", |bitwise| {
        bitwise
            .attribute(1, &NFT_REG_1.to_be_bytes())
            .attribute(2, &NFT_REG_1.to_be_bytes())
            .attribute(3, &length_of(mask.len()))
            .nest(4, |data| _ = data.attribute(NFTA_DATA_VALUE, mask))
            .nest(5, |data| _ = data.attribute(NFTA_DATA_VALUE, &vec![0; mask.len()]));
    });
}

/// Writes an expression that compares: register, operator, value.
fn write_compare(list: &mut Messages, equal: bool, value: &[u8]) {
    let operator = if equal { NFT_CMP_EQ } else { NFT_CMP_NEQ };
    write_expression(list, "cmp", |compare| {
        compare
            .attribute(1, &NFT_REG_1.to_be_bytes())
            .attribute(2, &operator.to_be_bytes())
            .nest(3, |data| _ = data.attribute(NFTA_DATA_VALUE, value));
    });
}

fn write_expression(list: &mut Messages, name: &str, data: impl FnOnce(&mut Messages)) {
    list.nest(NFTA_LIST_ELEM, |element| {
        _ = element.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data)
    });
}

/// Encodes a length within a packet's header.
fn length_of(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}
