//! The genesis of a solo network whose epochs are short.

/// The first accounts of a usual solo node, whose keys are published: the first makes blocks and is the executor.
const ACCOUNTS: [&str; 3] = [
    "0xf077b491b355E64048cE21E3A6Fc4751eEeA77fa",
    "0x435933c8064b4Ae76bE665428e0307eF2cCFBD68",
    "0x0F872421Dc479F3c11eDd89512731814D0598dB5",
];

/// The genesis file, as `thor solo --genesis` reads it: what a usual solo node begins with, and epochs of so many blocks.
pub(crate) fn with_epochs(blocks: u32) -> String {
    // A thousand million VET and VTHO, in wei.
    let amount = "0x33b2e3c9fd0803ce8000000";
    let account =
        |address: &&str| format!(r#"{{"address":"{address}","balance":"{amount}","energy":"{amount}"}}"#);
    let accounts: Vec<String> = ACCOUNTS.iter().map(account).collect();
    let [first, ..] = ACCOUNTS;
    format!(
        r#"{{"launchTime":1700000000,"gaslimit":40000000,"extraData":"short epochs","accounts":[{}],
"authority":[{{"masterAddress":"{first}","endorsorAddress":"{first}",
"identity":"0x0000000000000000000000000000000000000000000000000000000000000001"}}],
"params":{{"executorAddress":"{first}","baseGasPrice":"0x9184e72a000","rewardRatio":"0x429d069189e0000",
"proposerEndorsement":"0x14adf4b7320334b9000000"}},
"forkConfig":{{"VIP191":0,"ETH_CONST":0,"BLOCKLIST":0,"ETH_IST":0,"VIP214":0,"FINALITY":0,"GALACTICA":0}},
"config":{{"epochLength":{blocks}}}}}"#,
        accounts.join(",")
    )
}
