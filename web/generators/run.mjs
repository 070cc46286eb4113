// Makes a client with each of nine generators from /openapi.json of a running gateway, compiles it, and lets a small program place an
// order, be refused with a code that it reads typed, cancel without a body, and page a list:
//
//   make generators [ONLY=ogen] [QUICK=1] [URL=http://... KEY=og_test_...]
//
// A folder each has the program and its pins. All that is generated and installed goes into a temporary folder. A generator fails, too, if
// it says anything that is not known to be harmless: most of them warn where they leave something out. The guide must have its row.
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fail, gateway } from '../gateway.mjs';

const here = import.meta.dirname;
const guide = join(here, '../../openapi/guides/18-generators.md');
const jar = '7.17.0'; // of openapi-generator
const mvn = 'mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1';
const openapi = (generator, options) => `java -jar "$JAR" generate -g ${generator} ${options} -i openapi.json -o client`;
const python = 'python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check -r requirements.txt';
const npm = 'npm ci --no-audit --no-fund --loglevel=error';

// flag is what a user must add to the shortest command line; the other options name files. quick ones run with QUICK=1.
const generators = [
  {
    name: 'openapi-typescript + openapi-fetch', folder: 'openapi-typescript', version: '7.13.0 + 0.17.0', quick: true,
    flag: '',
    install: npm,
    generate: 'mkdir client && node_modules/.bin/openapi-typescript openapi.json -o client/schema.d.ts',
    compile: 'node_modules/.bin/tsc',
    run: 'node --disable-warning=ExperimentalWarning main.ts',
  },
  {
    name: '@hey-api/openapi-ts', folder: 'hey-api', version: '0.99.0', quick: true,
    flag: '',
    install: npm,
    generate: 'node_modules/.bin/openapi-ts -i openapi.json -o client',
    compile: 'node_modules/.bin/tsc',
    run: 'node built/main.js',
  },
  {
    name: 'openapi-python-client', folder: 'openapi-python-client', version: '0.29.1',
    flag: '`--config`: `content_type_overrides: {application/yaml: application/octet-stream}`',
    install: python,
    generate: 'PATH="$PWD/venv/bin:$PATH" openapi-python-client generate --config config.yml --path openapi.json --output-path client',
    compile: 'python3 -W error -m compileall -q client main.py',
    run: 'PYTHONPATH=client venv/bin/python main.py',
  },
  {
    name: 'oapi-codegen', folder: 'oapi-codegen', version: '2.8.2', quick: true,
    flag: '`output-options: {skip-prune: true}`',
    install: 'go build -o bin/ github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen',
    generate: 'mkdir client && bin/oapi-codegen -config config.yml openapi.json',
    compile: 'go vet .',
    run: 'go run .',
  },
  {
    name: 'ogen', folder: 'ogen', version: '1.24.0',
    flag: '',
    install: 'go build -o bin/ github.com/ogen-go/ogen/cmd/ogen',
    generate: 'bin/ogen --config ogen.yml --target client --package client openapi.json',
    compile: 'go vet .',
    run: 'go run .',
  },
  {
    name: 'openapi-generator, python', folder: 'openapi-generator-python', version: jar,
    flag: '`--global-property apis,models,supportingFiles`',
    install: python,
    generate: openapi('python', '--global-property apis,models,supportingFiles'),
    compile: 'python3 -W error -m compileall -q client/openapi_client main.py',
    run: 'PYTHONPATH=client venv/bin/python main.py',
  },
  {
    name: 'openapi-generator, go', folder: 'openapi-generator-go', version: jar,
    flag: '`--additional-properties useOneOfDiscriminatorLookup=true`',
    install: 'go mod download',
    generate: openapi('go', '--additional-properties useOneOfDiscriminatorLookup=true,packageName=client,withGoMod=false'),
    compile: 'go vet .',
    run: 'go run .',
  },
  {
    name: 'openapi-generator, java', folder: 'openapi-generator-java', version: jar,
    flag: '`--library native`',
    install: `${mvn}:copy-dependencies -DoutputDirectory=lib`,
    generate: openapi('java', '--library native'),
    compile: "find client/src/main/java -name '*.java' >sources && javac -Xlint:all,-serial,-processing -Werror -d classes -cp 'lib/*' @sources Main.java",
    run: "java -cp 'lib/*:classes' Main",
  },
  {
    name: 'openapi-generator, typescript-fetch', folder: 'openapi-generator-typescript-fetch', version: jar,
    flag: '`--global-property apis,models,supportingFiles`',
    install: npm,
    generate: openapi('typescript-fetch', '--global-property apis,models,supportingFiles'),
    compile: 'node_modules/.bin/tsc',
    run: 'node built/main.js',
  },
];

// harmless are lines that sound like a loss and are none.
const harmless = [
  [/Header name is not canonical/, 'ogen: names of headers have no case'],
  [/Convenient errors are not available/, 'ogen: every status is declared, there is no default'],
  [/String validator cannot be applied to generated type/, 'ogen: the length of a time is not checked before it is sent'],
  [/OpenAPI 3.1 support is still in beta/, 'openapi-generator: of itself'],
  [/Failed to get the schema name: null/, 'openapi-generator: looks for the name of an alternative that is null'],
  [/Response examples can currently only be generated for application\/json/, 'openapi-generator: examples are in no client'],
  [/Ignoring complex example on request body/, 'openapi-generator: as before'],
  [/Codegen property is null .* Default to typing.Any/, 'openapi-generator: a document and free-form values have any type'],
  [/not generated since it's (a free-form object|an alias to array)/, 'openapi-generator: the type stands where it is used'],
  [/Generator '.*' is considered|writing file|Processing operation|Output directory .* No file .*ignore|file post-processing|_POST_PROCESS_FILE/, 'openapi-generator: its log'],
  [/PythonFastAPIServerCodegen - Skipping sorting of path operations/, 'openapi-generator: of its servers'],
  [/Skipping generation of Webhooks/, 'openapi-generator: they are no calls of a client, and the events have their types all the same'],
  [/ruff is not in PATH|Skipping Integration/, 'openapi-python-client: formats what it made'],
];
const suspicious = /warn|error|omit|skip|ignor|unsupported|not supported|missing|cannot|not generated|duplicate|fail/i;

const { ONLY: only, QUICK: quick } = process.env;
const chosen = generators.filter((g) => (only ? g.folder === only : !quick || g.quick));
if (chosen.length === 0) fail(`there is no generator ${only}: ${generators.map((g) => g.folder).join(', ')}`);
need();
const work = mkdtempSync(join(tmpdir(), 'ordergate-generators-'));
process.on('exit', () => rmSync(work, { recursive: true, force: true }));
const { url, key, stop } = await gateway().catch((error) => fail(error.message));
try {
  await main();
} finally {
  await stop();
}

async function main() {
  const response = await fetch(`${url}/openapi.json`);
  if (!response.ok) throw new Error(`${url}/openapi.json: ${response.status}`);
  const contract = await response.text();
  const env = { ...process.env, URL: url, KEY: key, GOFLAGS: '-mod=readonly', GOWORK: 'off', CGO_ENABLED: '0', NO_COLOR: '1' };
  env.JAR = join(work, `openapi-generator-cli-${jar}.jar`);
  if (chosen.some((g) => g.version === jar)) {
    await shell(`${mvn}:copy -Dartifact=org.openapitools:openapi-generator-cli:${jar} -DoutputDirectory="${work}"`, work, env);
  }
  const rows = [];
  for (const g of chosen) {
    const begin = performance.now();
    const { worked, fault } = await check(g, contract, env).catch((error) => ({ worked: [], fault: error.message }));
    rows.push([g.name, g.version, g.flag || 'none', worked.join(', '), ((performance.now() - begin) / 1000).toFixed(1), fault ? 'FAILS' : 'works']);
    console.log(`${fault ? 'FAILS' : 'works'}  ${g.name} ${g.version}`);
    if (fault) console.log(fault.trim().replaceAll(/^/gm, '       '));
    rmSync(join(work, g.folder), { recursive: true, force: true });
  }
  console.log(`\n${table(['generator', 'version', 'its one needed flag', 'what worked', 'seconds', 'verdict'], rows)}`);
  const failed = rows.filter((row) => row.at(-1) === 'FAILS').length;
  console.log(`\n${rows.length - failed} passed, ${failed} failed`);
  if (failed) process.exitCode = 1;
}

// check makes a generator's client in a folder of its own, and tells which steps of its program worked.
async function check(g, contract, env) {
  const dir = join(work, g.folder);
  mkdirSync(dir);
  for (const file of readdirSync(join(here, g.folder))) {
    if (file !== 'node_modules') cpSync(join(here, g.folder, file), join(dir, file));
  }
  writeFileSync(join(dir, 'openapi.json'), contract);
  await shell(g.install, dir, env);
  const lines = (await shell(g.generate, dir, env)).split('\n').filter((line) => suspicious.test(line) && !harmless.some(([known]) => known.test(line)));
  if (lines.length) return { worked: [], fault: `it says, and nobody has judged that:\n${lines.slice(0, 20).join('\n')}` };
  await shell(g.compile, dir, env);
  const said = await shell(g.run, dir, env);
  const steps = { placed: /^placed ord_\S+ \w+$/m, refused: /^refused CAT_005 \/lines\/0\/sku$/m, cancelled: /^cancelled cancelled$/m, paged: /^paged \d+$/m };
  const worked = Object.keys(steps).filter((step) => steps[step].test(said));
  if (worked.length < 4) return { worked, fault: said };
  const row = `| ${g.name} | ${g.version} | ${g.flag || 'none'} |`;
  if (!readFileSync(guide, 'utf8').includes(row)) return { worked, fault: `openapi/guides/18-generators.md has no row ${row}` };
  return { worked };
}

// shell runs a command and returns all that it says. A command that fails is an error with its last lines.
function shell(command, cwd, env) {
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', command], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'], timeout: 600_000 });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve(said) : reject(new Error(`${command}\n${said.split('\n').slice(-25).join('\n')}`))));
  });
}

// need installs Java, Maven and Python's venv where one that is needed is missing: by apt-get on Debian and Ubuntu.
function need() {
  const works = (command) => spawnSync('sh', ['-c', command], { stdio: 'ignore' }).status === 0;
  const missing = [];
  if (chosen.some((g) => g.version === jar) && !works('java -version && mvn -v')) missing.push('maven');
  if (chosen.some((g) => g.folder.endsWith('java')) && !works('javac -version')) missing.push('default-jdk-headless');
  if (chosen.some((g) => g.install === python) && !works('python3 -c "import ensurepip, venv"')) missing.push('python3-venv');
  if (missing.length === 0) return;
  const sudo = process.getuid() === 0 ? '' : 'sudo ';
  const install = `${sudo}apt-get -qq update && ${sudo}env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends ${missing.join(' ')}`;
  if (!works('command -v apt-get')) fail(`install ${missing.join(', ')} and run this again`);
  console.log(`installing ${missing.join(', ')}`);
  if (spawnSync('sh', ['-c', `${install} >/dev/null`], { stdio: 'inherit' }).status !== 0) fail(`as root: apt-get install ${missing.join(' ')}`);
}

function table(head, rows) {
  const all = [head, ...rows];
  const widths = head.map((_, i) => Math.max(...all.map((row) => row[i].length)));
  const line = (row) => `| ${row.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |`;
  return [line(head), `|${widths.map((w) => '-'.repeat(w + 2)).join('|')}|`, ...rows.map(line)].join('\n');
}
