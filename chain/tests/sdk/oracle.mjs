// The oracle of tests/sdk.rs: reads JSON lines, responds to each with what VeChain's own library makes of it.
//   { body, key, payer? }      -> { raw, unsigned, hash, id, origin, gasPayer, intrinsicGas }
//   { decode }                 -> { id, origin, gasPayer, raw }     reads bytes that were signed elsewhere
//   { keystore, password }     -> { key }                           opens a keystore
//   { encrypt, password }      -> { keystore }                      writes one
//   { certify, key }           -> { signature }                     signs a certificate (VIP-192)
//   { typed, key }             -> { signature }                     signs typed data (EIP-712), as the library's signers do
// Private keys here are random ones of the test. Run with the folder that holds node_modules as its argument.
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(join(process.argv[2], "package.json"));
const { Certificate, HexUInt, Secp256k1, Transaction, keystore } = require("@vechain/sdk-core");
const { hashTypedData } = require("viem");

const bytes = (hex) => HexUInt.of(hex).bytes;
const hex = (data) => "0x" + Buffer.from(data).toString("hex");

function describe(tx) {
  return {
    raw: hex(tx.encoded),
    id: tx.id.toString(),
    origin: tx.origin.toString().toLowerCase(),
    gasPayer: (tx.isDelegated ? tx.gasPayer : tx.origin).toString().toLowerCase(),
  };
}

async function respond(question) {
  if (question.decode) return describe(Transaction.decode(bytes(question.decode), true));
  if (question.keystore) {
    const password = new TextEncoder().encode(question.password);
    return { key: (await keystore.decrypt(question.keystore, password)).privateKey };
  }
  if (question.encrypt) {
    const password = new TextEncoder().encode(question.password);
    return { keystore: await keystore.encrypt(bytes(question.encrypt), password) };
  }
  if (question.certify) {
    return { signature: Certificate.of(question.certify).sign(bytes(question.key)).signature };
  }
  if (question.typed) {
    return { signature: hex(Secp256k1.sign(bytes(hashTypedData(question.typed)), bytes(question.key))) };
  }
  const unsigned = Transaction.of(question.body);
  const signed = question.payer
    ? unsigned.signAsSenderAndGasPayer(bytes(question.key), bytes(question.payer))
    : unsigned.sign(bytes(question.key));
  return {
    ...describe(signed),
    unsigned: hex(unsigned.encoded),
    hash: unsigned.getTransactionHash().toString(),
    intrinsicGas: Number(unsigned.intrinsicGas.wei),
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  let reply;
  try {
    reply = await respond(JSON.parse(line));
  } catch (error) {
    reply = { error: String(error?.message ?? error) };
  }
  console.log(JSON.stringify(reply));
}
