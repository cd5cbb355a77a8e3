// Compiles the contracts that a local Thor node is given and writes them as one JSON file:
//   { "version": 1, "input": HASH, "contracts": { NAME: { "abi": [...], "bytecode": "…", "links": { LIBRARY: [byte offset, …] } } } }
// `node compile.mjs OUTPUT` does nothing when OUTPUT already holds the result of the same packages and settings.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
// Packages may be installed elsewhere, so that nothing is written into the sources: the folder that holds node_modules.
const packages = process.env.CONTRACT_PACKAGES ?? here;
const require = createRequire(join(packages, "package.json"));

// Source file -> contracts to keep. Libraries that they call are found through their link references.
const WANTED = {
  "B3TR.sol": ["B3TR"],
  "B3TRProxy.sol": ["B3TRProxy"],
  "NodeManagement.sol": ["NodeManagement"],
  "X2EarnCreator.sol": ["X2EarnCreator"],
  "X2EarnApps.sol": ["X2EarnApps"],
  "X2EarnRewardsPool.sol": ["X2EarnRewardsPool"],
  "deprecated/V1/X2EarnAppsV1.sol": ["X2EarnAppsV1"],
  "ve-better-passport/VeBetterPassport.sol": ["VeBetterPassport"],
  "mocks/VechainNodes/TokenAuction.sol": ["TokenAuction"],
  "mocks/VechainNodes/auction/ClockAuction.sol": ["ClockAuction"],
};
const ROOT = "@vechain/vebetterdao-contracts/contracts";

// Our own, beside this file: what the package does not hold.
const OWN = { "LaterRewardsPool.sol": ["LaterRewardsPool", "TurnedRounds"] };

// The optimizer's smallest setting keeps the largest contracts below the 24 KiB limit; Thor has no PUSH0 before a later fork,
// so code is made for Paris.
const SETTINGS = {
  optimizer: { enabled: true, runs: 1 },
  evmVersion: "paris",
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.bytecode.linkReferences"] } },
};

function fail(message) {
  console.error(`compile.mjs: ${message}`);
  process.exit(1);
}

function readSource(path) {
  const file = join(packages, "node_modules", path);
  return existsSync(file) ? { contents: readFileSync(file, "utf8") } : { error: `no file ${path}` };
}

// Changes whenever a package, a setting or this file does.
function inputHash() {
  const hash = createHash("sha256");
  const own = Object.keys(OWN).map((file) => join(here, file));
  for (const file of [fileURLToPath(import.meta.url), join(here, "package-lock.json"), ...own]) hash.update(readFileSync(file));
  return hash.digest("hex");
}

function alreadyMade(output, input) {
  try {
    return JSON.parse(readFileSync(output, "utf8")).input === input;
  } catch {
    return false;
  }
}

function compile() {
  const solc = require("solc");
  const sources = Object.fromEntries(
    Object.keys(WANTED).map((file) => [`${ROOT}/${file}`, { content: readSource(`${ROOT}/${file}`).contents }]),
  );
  for (const file of Object.keys(OWN)) sources[file] = { content: readFileSync(join(here, file), "utf8") };
  const missing = Object.entries(sources).find(([, source]) => source.content === undefined);
  if (missing) fail(`${missing[0]} is not installed: run npm ci first`);
  const answer = JSON.parse(
    solc.compile(JSON.stringify({ language: "Solidity", sources, settings: SETTINGS }), { import: readSource }),
  );
  const errors = (answer.errors ?? []).filter((error) => error.severity === "error");
  if (errors.length > 0) fail(errors.map((error) => error.formattedMessage).join("\n"));
  return answer.contracts;
}

function collect(compiled) {
  const found = {};
  const take = (path, name) => {
    if (found[name]) return;
    const { abi, evm } = compiled[path][name];
    const links = {};
    found[name] = { abi, bytecode: evm.bytecode.object, links };
    for (const [file, libraries] of Object.entries(evm.bytecode.linkReferences)) {
      for (const [library, places] of Object.entries(libraries)) {
        links[library] = places.map((place) => place.start);
        take(file, library);
      }
    }
  };
  for (const [file, names] of Object.entries(WANTED)) for (const name of names) take(`${ROOT}/${file}`, name);
  for (const [file, names] of Object.entries(OWN)) for (const name of names) take(file, name);
  return found;
}

const output = process.argv[2] ?? fail("usage: node compile.mjs OUTPUT");
const input = inputHash();
if (!alreadyMade(output, input)) {
  const contracts = collect(compile());
  mkdirSync(dirname(output), { recursive: true });
  writeFileSync(`${output}.new`, JSON.stringify({ version: 1, input, contracts }));
  renameSync(`${output}.new`, output); // Never half a file under the final name.
}
