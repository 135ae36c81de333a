// The emulator judged by @fly/sprites, the official SDK for JavaScript. test_fly_sprites.py runs it.
// Where the SDK is known to be wrong, the test says so and names the public issue, if there is one.
import assert from 'node:assert/strict';
import { on, once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const { SDK, PLAIN, TAIL, LIVE, LIMITED, TOKEN } = process.env;
const { APIError, ExecError, FilesystemError, SpritesClient } = await import(SDK);

const client = new SpritesClient(TOKEN, { baseURL: PLAIN + '/' });
const controlled = new SpritesClient(TOKEN, { baseURL: PLAIN, controlMode: true });
const PATIENCE = 60_000;
let made = 0;

const fresh = (from = client) => from.createSprite(`js-${made++}`);

async function until(condition) {
  for (const end = Date.now() + PATIENCE; !(await condition());) {
    assert.ok(Date.now() < end, 'it did not come true in time');
    await sleep(20);
  }
}

// What a command gave, whatever its exit code.
async function outcome(run) {
  try {
    return await run;
  } catch (error) {
    assert.ok(error instanceof ExecError, error);
    return error.result;
  }
}

const sh = (sprite, line, options) => outcome(sprite.execFile('sh', ['-c', line], options));

// A command that goes on; `seen` is its stdout so far.
function background(command) {
  command.seen = '';
  command.stdout.on('data', data => { command.seen += data; });
  command.until = text => until(() => command.seen.includes(text));
  command.code = once(command, 'exit').then(([code]) => code);
  return command;
}

async function fault(name, more = {}) {
  const answer = await fetch(`${PLAIN}/_emulator/faults`, { method: 'POST', body: JSON.stringify({ name, ...more }) });
  assert.equal(answer.status, 200);
}

// -- Sprites ------------------------------------------------------------------

test('a Sprite is created, updated, listed and deleted', async () => {
  const sprite = await client.createSprite('js-life', {
    config: { cpus: 2, ramMB: 512 }, labels: ['one', 'two'], urlSettings: { auth: 'public' }, waitForCapacity: true,
    runtime: 'default' });
  assert.deepEqual([sprite.name, sprite.status, sprite.labels, sprite.urlSettings.auth],
    ['js-life', 'cold', ['one', 'two'], 'public']);
  assert.deepEqual([sprite.config.cpus, sprite.config.ramMB, sprite.organizationName], [2, 512, 'emulator']);
  assert.match(sprite.id, /^sprite-/);
  assert.ok(Date.now() - sprite.createdAt < PATIENCE && sprite.lastRunningAt === undefined);
  assert.equal((await sprite.exec('echo  split on   white space')).stdout, 'split on white space\n');
  const got = await client.getSprite('js-life');
  assert.deepEqual([got.id, got.createdAt, got.status], [sprite.id, sprite.createdAt, 'running']);
  const changed = await got.update({ labels: [], urlSettings: { auth: 'sprite', privateAccess: 'admins' } });
  assert.deepEqual([changed.labels, changed.urlSettings], [[], { auth: 'sprite', privateAccess: 'admins' }]);
  const page = await client.listSprites({ prefix: 'js-life' });
  assert.deepEqual([page.sprites.map(info => info.name), page.hasMore, page.organizationName], [['js-life'], false, 'emulator']);
  assert.ok(page.running >= 1);
  assert.equal((await client.listSprites({ prefix: 'js-life', bulkLoad: true })).sprites[0].organization, 'emulator');
  await got.upgrade();
  assert.equal((await got.check()).status, 'healthy');
  assert.equal((await got.restart()).spriteName, 'js-life');
  await got.delete();
  for (const call of ['getSprite', 'deleteSprite', 'upgradeSprite', 'restartSprite', 'checkSprite']) {
    await assert.rejects(client[call]('js-life'), error => error instanceof APIError && error.statusCode === 404
      && error.message.includes('sprite not found'));
  }
});

test('refusals', async () => {
  await client.createSprite('js-twin');
  await assert.rejects(client.createSprite('js-twin'), { statusCode: 409, message: /named 'js-twin' already exists/ });
  await assert.rejects(client.createSprite('Not A Name'), { statusCode: 400 });
  const stranger = new SpritesClient('wrong', { baseURL: PLAIN });
  await assert.rejects(stranger.listSprites(), { statusCode: 401, message: /authentication failed/ });
  await assert.rejects(stranger.sprite('js-twin').exec('true'));
});

test('limits are told', async () => {
  const limited = new SpritesClient(TOKEN, { baseURL: LIMITED });
  await (await limited.createSprite('first')).exec('true');
  await assert.rejects(limited.createSprite('second'), error => error.isRateLimitError() && error.isCreationRateLimited()
    && error.limit === 1 && error.windowSeconds === 60 && error.getRetryAfterSeconds() >= 1 && error.rateLimitRemaining === 0);
});

test('a list of many pages, and of what is in it', async () => {
  const names = Array.from({ length: 60 }, (_, n) => `js-page-${String(n).padStart(2, '0')}`);
  await Promise.all(names.map(name => client.createSprite(name)));
  assert.deepEqual((await client.listAllSprites('js-page-')).map(sprite => sprite.name), names);
  await Promise.all(names.map(name => client.deleteSprite(name)));
});

test('the list is watched', async () => {
  const sprite = await client.createSprite('js-watched');
  const stream = await client.watchSprites({ prefix: 'js-watched' });
  const first = await stream.next();
  assert.deepEqual([first.name, first.status, first.organization.name], ['js-watched', 'cold', 'emulator']);
  await sprite.exec('true');
  let event;
  do event = await stream.next(); while (event.status !== 'running');
  assert.ok(event.runningVersion && event.lastRunningAt && event.organization.running >= 1 && event.timestamp);
  stream.close();
});

// -- commands -----------------------------------------------------------------

for (const [way, from] of [['exec', client], ['control', controlled]]) {
  test(`output, environment and folder (${way})`, async () => {
    const sprite = await fresh(from);
    assert.deepEqual(await sh(sprite, 'echo out; echo err >&2; exit 42'), { stdout: 'out\n', stderr: 'err\n', exitCode: 42 });
    assert.equal((await sh(sprite, 'pwd')).stdout, '/home/sprite\n');
    assert.equal((await sh(sprite, 'pwd', { cwd: '/tmp' })).stdout, '/tmp\n');
    const given = await sprite.execFile('env', [], { env: { ONE: '1', TWO: 'a=b c' } });
    assert.deepEqual(given.stdout.trim().split('\n').sort(), ['HOME=/home/sprite', 'ONE=1', 'TWO=a=b c']);
    assert.equal((await sprite.execFile('printf', ['%s|', 'a b', '', 'ü&+%'])).stdout, 'a b||ü&+%|');
    assert.deepEqual((await sprite.execFile('printf', ['\\0\\377'], { encoding: 'buffer' })).stdout, Buffer.from([0, 255]));
    assert.equal((await outcome(sprite.exec('no-such-program'))).exitCode, 127);
    assert.equal((await sh(sprite, 'kill -TERM $$')).exitCode, 143);
    assert.equal((await outcome(sprite.execFile('tty'))).stdout, 'not a tty\n');
  });

  test(`every exit code (${way})`, async () => {
    const sprite = await fresh(from);
    const codes = [];
    for (let start = 0; start < 256; start += 16) {
      const done = await Promise.all(Array.from({ length: 16 }, (_, n) => sh(sprite, `exit ${start + n}`)));
      codes.push(...done.map(one => one.exitCode));
    }
    assert.deepEqual(codes, Array.from({ length: 256 }, (_, n) => n));
  });

  test(`large output (${way})`, async () => {
    const done = await sh(await fresh(from), "head -c 8000000 /dev/zero | tr '\\0' x; head -c 100000 /dev/zero >&2");
    assert.deepEqual([done.stdout.length, done.stderr.length, done.exitCode], [8_000_000, 100_000, 0]);
  });
}

test('stdin', async () => {
  const sprite = await fresh();
  const command = background(sprite.spawn('sh', ['-c', 'cat; exit 3']));
  await once(command, 'spawn');
  for (let n = 0; n < 50; n++) command.stdin.write('x'.repeat(10_000));
  command.stdin.end('end');
  assert.equal(await command.code, 3);
  assert.equal(command.seen, 'x'.repeat(500_000) + 'end');
});

// Wrong in the SDK: https://github.com/rivet-dev/sandbox-agent/issues/312
test('a command that reads its stdin waits until the caller ends it', async () => {
  const sprite = await fresh();
  let ended = false;
  const done = sprite.execFile('cat').finally(() => { ended = true; });
  await until(async () => (await sprite.listSessions()).length === 1);
  await sleep(300);
  assert.equal(ended, false);
  const [session] = await sprite.listSessions();
  await (await sprite.killSession(session.id)).processAll(() => {});
  await assert.rejects(done, { exitCode: 143 });
});

test('a terminal, its size and its changes of size', async () => {
  const sprite = await fresh();
  const command = background(sprite.spawn('bash', ['--norc'], { tty: true, rows: 24, cols: 80, env: { PS1: '$ ' } }));
  const info = (async () => {
    for await (const [message] of on(command, 'message')) if (message.type === 'session_info') return message;
  })();
  await command.until('$ ');
  assert.deepEqual([(await info).tty, (await info).rows, (await info).cols], [true, 24, 80]);
  command.resize(120, 40);
  command.stdin.write('stty size; tty\r');
  await command.until('40 120\r\n/dev/pts/');
  command.stdin.write('exit\r');
  assert.equal(await command.code, 0);
  assert.equal((await sprite.execFile('stty', ['size'], { tty: true, rows: 10, cols: 20 })).stdout, '10 20\r\n');
  assert.equal((await sprite.execFile('echo', ['tty-test'], { tty: true })).stdout, 'tty-test\r\n');
});

// Wrong in the SDK: it goes by the close code of the socket and not by the exit message. No public issue known.
test('the exit code of a terminal is lost', async () => {
  assert.equal((await (await fresh()).execFile('sh', ['-c', 'exit 5'], { tty: true })).exitCode, 0);
});

test('signals', async () => {
  const sprite = await fresh();
  const command = background(sprite.spawn('sh', ['-c', "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"]));
  await command.until('ready');
  command.kill('SIGUSR1');
  assert.equal(await command.code, 9);
});

test('many at once', async () => {
  const sprite = await fresh();
  const done = await Promise.all(Array.from({ length: 30 }, (_, n) => sprite.exec(`echo number ${n}`)));
  assert.deepEqual(done.map(one => one.stdout), Array.from({ length: 30 }, (_, n) => `number ${n}\n`));
});

// Waiting for it was https://github.com/superfly/sprites-js/pull/16
test('the tail of the socket is not waited for', { timeout: PATIENCE }, async () => {
  const sprite = await new SpritesClient(TOKEN, { baseURL: TAIL }).createSprite('tail');
  assert.equal((await sprite.exec('echo out')).stdout, 'out\n');
});

test('an end without an exit code is not taken for success', async () => {
  const sprite = await fresh();
  for (const name of ['cut_before_output', 'cut_after_output', 'cut_before_exit', 'cut_mid_frame', 'no_exit_code', 'kill_vm']) {
    await fault(name, { count: 1, match: { sprite: sprite.name } });
    await assert.rejects(sprite.execFile('sh', ['-c', 'echo out; sleep 0.3']),
      error => error.exitCode === -1 || /WebSocket/.test(error.message));
  }
});

test('output after the text exit arrives', async () => {
  const sprite = await fresh();
  await fault('early_exit', { count: 1, match: { sprite: sprite.name } });
  assert.deepEqual(await sh(sprite, 'echo one; sleep 0.1; echo two; exit 4'), { stdout: 'one\ntwo\n', stderr: '', exitCode: 4 });
});

// Wrong in the SDK: a control socket that gave an exit code other than 0 counts as failed, and the command runs
// once more on a socket of its own. No public issue known.
test('over a control socket a command that fails runs twice', async () => {
  const sprite = await fresh(controlled);
  assert.equal((await sh(sprite, 'echo >> ~/ran; exit 3')).exitCode, 3);
  assert.equal((await sh(sprite, 'wc -l < ~/ran')).stdout, '2\n');
});

// Wrong in the SDK: it takes the missing exitCode of op.complete for 0, over the exit frame that it read. No public issue known.
test('live control sockets hide failures', async () => {
  const sprite = await new SpritesClient(TOKEN, { baseURL: LIVE, controlMode: true }).createSprite('hides');
  assert.deepEqual(await sh(sprite, 'echo out; exit 9'), { stdout: 'out\n', stderr: '', exitCode: 0 });
});

// Wrong in the protocol, as the SDK's own comment says: frames have no length, so a reader that is late takes two for one.
async function overHTTP(sprite, file, args, options) {
  for (let tries = 0; tries < 20; tries++) {
    try {
      const done = await outcome(sprite.execFileHTTP(file, args, options));
      if (!/[\x01-\x03]/.test(done.stdout)) return done;
    } catch (error) {
      assert.match(error.message, /did not include an exit frame|chunk boundaries/);
    }
  }
  assert.fail('frames were taken together 20 times');
}

test('commands over HTTP', async () => {
  const sprite = await fresh();
  for (const code of [0, 1, 42, 255]) {
    assert.equal((await outcome(sprite.execFileHTTP('sh', ['-c', `exit ${code}`]))).exitCode, code);
  }
  const options = { input: 'in ', cwd: '/tmp', env: { A: 'b', PATH: '/usr/bin:/bin' } };
  assert.deepEqual(await overHTTP(sprite, 'sh', ['-c', 'cat; pwd; echo $A; exit 4'], options), { stdout: 'in /tmp\nb\n', stderr: '', exitCode: 4 });
  await fault('merged_frames', { count: 1, bytes: 1000, match: { sprite: sprite.name } });
  await assert.rejects(sprite.execFileHTTP('echo', ['merged']), /did not include an exit frame/);
  await assert.rejects(sprite.execFileHTTP('no-such-program'), { statusCode: 500, message: /failed to start process/ });
  await assert.rejects(client.sprite('js-nobody').execFileHTTP('true'), { statusCode: 404 });
});

// -- sessions -----------------------------------------------------------------

test('sessions are listed, attached and killed', async () => {
  const sprite = await fresh();
  const owner = background(sprite.spawn('sh', ['-c', 'echo begun; sleep 60'], { cwd: '/tmp' }));
  await owner.until('begun');
  const [session, ...more] = await sprite.listSessions();
  assert.ok(session.command.endsWith('sh -c echo begun; sleep 60'));
  assert.deepEqual([session.workdir, session.tty, session.isActive, more.length], ['/tmp', false, true, 0]);
  assert.ok(Date.now() - session.created < PATIENCE && session.lastActivity);
  const second = background(sprite.attachSession(session.id));
  await once(second, 'spawn');
  const events = [];
  await (await sprite.killSession(session.id, 'KILL', '5s')).processAll(event => { events.push(event); });
  assert.deepEqual(events.map(event => event.type), ['signal', 'exited', 'complete']);
  assert.deepEqual([events[0].signal, events[2].exitCode], ['SIGKILL', 137]);
  assert.deepEqual([await owner.code, await second.code], [137, 137]);
  await assert.rejects(sprite.killSession(session.id), { statusCode: 410 });
  await assert.rejects(sprite.killSession('424242'), { statusCode: 404 });
  assert.deepEqual(await sprite.listSessions(), []);
});

test('a terminal goes on without its client', async () => {
  const sprite = await fresh();
  const owner = background(sprite.createSession('bash', ['--norc'], { env: { PS1: '$ ' }, maxRunAfterDisconnect: '0' }));
  await owner.until('$ ');
  owner.stdin.write('echo left > ~/file; cat\r');
  await owner.until('cat\r\n');
  owner.wsCmd.close();
  await owner.code;
  const [session] = await sprite.listSessions();
  assert.deepEqual([session.tty, session.isActive], [true, false]);
  const again = background(sprite.attachSession(session.id));
  await again.until('cat\r\n');
  again.stdin.write('\x04');
  again.stdin.write('exit\r');
  await again.code;
  assert.equal((await sprite.exec('cat file')).stdout, 'left\n');
});

// -- checkpoints and policies -------------------------------------------------

async function finished(stream) {
  const messages = [];
  for await (const message of await stream) messages.push(message);
  return messages;
}

test('a checkpoint is made, listed and restored', async () => {
  const sprite = await fresh();
  await sh(sprite, 'echo before > ~/file');
  const made = (await finished(sprite.createCheckpoint('first one'))).at(-1);
  assert.equal(made.type, 'complete');
  const [, id] = made.data.match(/^Checkpoint (\S+) created successfully$/);
  const listed = await sprite.listCheckpoints();
  assert.equal(listed[0].id, 'Current');
  const found = listed.find(checkpoint => checkpoint.id === id);
  assert.deepEqual([found.comment, found.isAuto], ['first one', false]);
  assert.deepEqual((await sprite.getCheckpoint(id)).createTime, found.createTime);
  await sh(sprite, 'echo after > ~/file; touch ~/new');
  assert.equal((await finished(sprite.restoreCheckpoint(id))).at(-1).type, 'complete');
  assert.equal((await sh(sprite, 'cat ~/file; ls ~')).stdout, 'before\nfile\n');
  await assert.rejects(sprite.getCheckpoint('v99'), /Checkpoint not found/);
  const failed = await finished(sprite.restoreCheckpoint('v99'));
  assert.equal(failed.at(-1).type, 'error');
  assert.match(failed.at(-1).error, /not found/);
});

test('policies', async () => {
  const sprite = await fresh();
  assert.deepEqual(await sprite.getNetworkPolicy(), { rules: [] });
  const rules = [{ domain: 'example.com', action: 'allow' }, { domain: '*', action: 'deny' }];
  await sprite.updateNetworkPolicy({ rules });
  assert.deepEqual(await sprite.getNetworkPolicy(), { rules });
  await assert.rejects(sprite.updateNetworkPolicy({ rules: [{ domain: '*' }] }), /Invalid policy/);
  assert.deepEqual(await sprite.getNetworkPolicy(), { rules });
  await sprite.updatePrivilegesPolicy({ profile: 'minimal', devices: [], noNewPrivileges: true });
  assert.equal((await sprite.getPrivilegesPolicy()).profile, 'minimal');
  await sprite.deletePrivilegesPolicy();
  await sprite.updateResourcesPolicy({ memory: { limitMB: 1024, autoscale: true } });
  assert.deepEqual(await sprite.getResourcesPolicy(), { memory: { limitMB: 1024, autoscale: true } });
  await sprite.deleteResourcesPolicy();
});

// -- files, services, ports ---------------------------------------------------

const failing = code => error => error instanceof FilesystemError && error.code === code;

test('files', async () => {
  const sprite = await fresh();
  const fs = sprite.filesystem('/home/sprite');
  await fs.writeFile('deep/er/text', 'grüße', { mode: 0o640 });
  assert.equal(await fs.readFile('/home/sprite/deep/er/text', 'utf8'), 'grüße');
  assert.equal((await sh(sprite, 'stat -c "%a %U %s" ~/deep/er/text')).stdout, '640 sprite 7\n');
  const bytes = Buffer.from(Array.from({ length: 256 * 1024 }, (_, n) => n % 256));
  await fs.writeFile('bytes', bytes);
  assert.deepEqual(await fs.readFile('bytes'), bytes);
  await fs.appendFile('log', 'one ');
  await fs.appendFile('log', 'two');
  assert.equal(await fs.readFile('log', 'utf8'), 'one two');
  await fs.writeJSON('some.json', { a: [1] });
  assert.deepEqual(await fs.readJSON('some.json'), { a: [1] });
  const stat = await fs.stat('bytes');
  assert.deepEqual([stat.size, stat.isFile(), stat.isDirectory()], [bytes.length, true, false]);
  assert.ok(Math.abs(Date.now() - stat.mtime) < 60_000);
  await fs.mkdir('empty/inner', { recursive: true });
  assert.deepEqual(await fs.readdir('empty/inner'), []);
  assert.deepEqual((await fs.readdir('.')).sort(), ['bytes', 'deep', 'empty', 'log', 'some.json']);
  const entries = await fs.readdir('.', { withFileTypes: true });
  assert.deepEqual(entries.filter(entry => entry.isDirectory()).map(entry => entry.name).sort(), ['deep', 'empty']);
  await fs.rename('log', 'moved');
  await fs.copyFile('moved', 'copied');
  await fs.copyFile('deep', 'deep-copy', { recursive: true });
  assert.equal(await fs.readFile('deep-copy/er/text', 'utf8'), 'grüße');
  await fs.chmod('copied', 0o755);
  assert.equal((await sh(sprite, 'stat -c %a ~/copied; test -e ~/log || echo gone')).stdout, '755\ngone\n');
  assert.deepEqual([await fs.exists('copied'), await fs.exists('nowhere')], [true, false]);
  await fs.rm('deep', { recursive: true });
  await fs.rm('nowhere', { force: true });
  await assert.rejects(fs.readFile('nowhere'), failing('ENOENT'));
  await assert.rejects(fs.readFile('empty'), failing('EISDIR'));
  await assert.rejects(fs.rm('empty'), failing('ENOTEMPTY'));
  await assert.rejects(fs.rm('nowhere'), failing('ENOENT'));
});

// Wrong in the protocol: there is no stat, so the SDK takes the first entry of the list.
test('an empty directory does not exist', async () => {
  const fs = (await fresh()).filesystem('/home/sprite');
  await fs.mkdir('empty');
  assert.equal(await fs.exists('empty'), false);
});

test('files are watched', async () => {
  const sprite = await fresh();
  const watcher = await sprite.filesystem('/home/sprite').watch('.');
  assert.equal((await watcher.next()).type, 'subscribed');
  await sh(sprite, 'echo > ~/new');
  let event;
  do event = await watcher.next(); while (!event.path?.endsWith('new'));
  assert.deepEqual([event.type, event.event], ['event', 'create']);
  watcher.close();
});

test('services, and a port of one', async () => {
  const sprite = await fresh();
  const service = { cmd: 'python3', args: ['-m', 'http.server', '8080'], env: { A: 'b' } };
  const events = await finished(sprite.createService('web', service, '500ms'));
  assert.deepEqual([events[0].type, events.at(-1).type], ['started', 'complete']);
  const [listed, ...more] = await sprite.listServices();
  assert.deepEqual([listed.name, listed.cmd, listed.state.status, more.length], ['web', 'python3', 'running', 0]);
  const ports = await sprite.watchPorts();
  for (let open; !open;) {
    const event = await ports.next();
    open = [event, ...event.ports ?? []].some(one => one.port === 8080);
  }
  ports.close();
  const proxy = await sprite.proxyPort(0, 8080);
  const page = await fetch(`http://${proxy.localAddr()}/`);
  assert.match(await page.text(), /Directory listing/);
  proxy.close();
  await sprite.signalService('web', 'TERM');
  await finished(sprite.stopService('web', '2s'));
  assert.equal((await sprite.getService('web')).state.status, 'stopped');
  await finished(sprite.startService('web', '200ms'));
  assert.equal((await sprite.getService('web')).state.status, 'running');
  await finished(sprite.stopService('web', '2s'));
  await sprite.deleteService('web');
  await assert.rejects(sprite.getService('web'));
});
