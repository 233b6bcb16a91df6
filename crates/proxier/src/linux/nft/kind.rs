//! Message, attribute and flag numbers of nftables (`linux/netfilter/nf_tables.h`).

// `NFT_MSG_*`.
pub(super) const NEW_TABLE: u8 = 0;
pub(super) const GET_TABLE: u8 = 1;
pub(super) const DELETE_TABLE: u8 = 2;
pub(super) const NEW_CHAIN: u8 = 3;
pub(super) const GET_CHAIN: u8 = 4;
pub(super) const DELETE_CHAIN: u8 = 5;
pub(super) const NEW_RULE: u8 = 6;
pub(super) const GET_RULE: u8 = 7;
pub(super) const DELETE_RULE: u8 = 8;
pub(super) const NEW_SET: u8 = 9;
pub(super) const NEW_ELEMENTS: u8 = 12;
pub(super) const GET_ELEMENTS: u8 = 13;
pub(super) const DELETE_ELEMENTS: u8 = 14;

/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`, `NFTA_SET_TABLE`, `NFTA_SET_ELEM_LIST_TABLE`.
pub(in crate::linux) const OF_TABLE: u16 = 1;
pub(super) const TABLE_USER_DATA: u16 = 6;

// `NFTA_CHAIN_*` and `NFTA_HOOK_*`.
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;

// `NFTA_RULE_*`.
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USER_DATA: u16 = 7;

/// `NFTA_LIST_ELEM`: an expression of a rule, an element of a set, a field of a description.
pub(super) const LIST_ELEMENT: u16 = 1;
// `NFTA_EXPR_*`.
pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const EXPRESSION_DATA: u16 = 2;
// `NFTA_DATA_*` and `NFTA_VERDICT_*`.
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_CHAIN: u16 = 2;
/// `NFTA_IMMEDIATE_DATA`.
pub(super) const IMMEDIATE_DATA: u16 = 2;
/// `NF_DROP`, as the verdict of a rule and as the policy of a chain.
pub(super) const DROP: u32 = 0;

// `NFTA_SET_*` and `NFTA_SET_DESC_CONCAT`.
pub(super) const SET_NAME: u16 = 2;
pub(super) const SET_FLAGS: u16 = 3;
pub(super) const SET_KEY_TYPE: u16 = 4;
pub(super) const SET_KEY_LENGTH: u16 = 5;
pub(super) const SET_DATA_TYPE: u16 = 6;
pub(super) const SET_DATA_LENGTH: u16 = 7;
pub(super) const SET_DESCRIPTION: u16 = 9;
pub(super) const SET_ID: u16 = 10;
pub(super) const SET_USER_DATA: u16 = 13;
pub(super) const DESCRIPTION_FIELDS: u16 = 2;
pub(super) const FIELD_LENGTH: u16 = 1;
// `NFT_SET_*`.
pub(super) const INTERVAL: u32 = 4;
pub(super) const MAP: u32 = 8;
pub(super) const CONCATENATION: u32 = 0x80;

// `NFTA_SET_ELEM_LIST_*`.
pub(super) const OF_SET: u16 = 2;
pub(super) const ELEMENTS: u16 = 3;
// `NFTA_SET_ELEM_*`.
pub(super) const KEY: u16 = 1;
pub(super) const DATA: u16 = 2;
pub(super) const FLAGS: u16 = 3;
pub(super) const USER_DATA: u16 = 6;
pub(super) const KEY_END: u16 = 10;
/// `NFT_SET_ELEM_INTERVAL_END`.
pub(super) const INTERVAL_END: u32 = 1;
