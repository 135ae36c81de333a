// The gateway's MCP endpoint used by the official clients: the SDK that knows the older manner, and its successor in both. test_mcp.py runs it.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const { URL: ADDRESS, TOKEN, OLDER, OLDER_TRANSPORT, CLIENT } = process.env;
const older = { ...(await import(OLDER)), ...(await import(OLDER_TRANSPORT)) };
const newer = await import(CLIENT);
const headers = { Authorization: `Bearer ${TOKEN}` };
const PATIENCE = 60_000;
const open = [];

async function connect({ Client, StreamableHTTPClientTransport }, options) {
  const client = new Client({ name: 'test', version: '1' }, options);
  await client.connect(new StreamableHTTPClientTransport(new URL(ADDRESS), { requestInit: { headers } }));
  open.push(client);
  return client;
}

after(() => Promise.all(open.map((client) => client.close())));

async function running() {
  const answer = await fetch(new URL('quota', ADDRESS), { headers });
  return (await answer.json()).concurrency.running;
}

async function untilRunning(count) {
  for (const end = Date.now() + PATIENCE; (await running()) !== count; await sleep(20))
    assert.ok(Date.now() < end, `never ${count} commands`);
}

const MANNERS = {
  'SDK 1': () => connect(older),
  'client 2, as it is': () => connect(newer),
  'client 2, stateless': () => connect(newer, { versionNegotiation: { mode: { pin: '2026-07-28' } } }),
  'client 2, what the server can': () => connect(newer, { versionNegotiation: { mode: 'auto' } }),
};

for (const [name, make] of Object.entries(MANNERS))
  test(name, async () => {
    const client = await make();
    assert.deepEqual((await client.listTools()).tools.map((tool) => tool.name), ['run_command', 'read_file', 'write_file']);
    const call = (tool, args) => client.callTool({ name: tool, arguments: args });

    const ran = await call('run_command', { command: 'cat; echo err >&2; exit 3', stdin: 'grüße\n' });
    assert.equal(ran.isError, false);
    assert.deepEqual(JSON.parse(ran.content[0].text), ran.structuredContent);
    const { outcome, exit_code, stdout, stderr } = ran.structuredContent;
    assert.deepEqual([outcome, exit_code, stdout, stderr], ['exited', 3, 'grüße\n', 'err\n']);

    const session = `js-${Object.keys(MANNERS).indexOf(name)}`;
    assert.equal((await call('write_file', { session, path: 'a/b', text: 'kept' })).isError, false);
    assert.equal((await call('read_file', { session, path: 'a/b' })).structuredContent.stdout, 'kept');
    await fetch(new URL(`sessions/${session}`, ADDRESS), { headers, method: 'DELETE' });

    const refused = await call('run_command', {});
    assert.equal(refused.isError, true);
    assert.equal(refused.structuredContent.code, 'invalid-request');
    await assert.rejects(call('no_such_tool', {}), /There is no such tool/);
  });

test('a tool that takes long tells of it', async () => {
  const tool = { name: 'run_command', arguments: { command: 'sleep 10; echo awake' } };
  await Promise.all(['SDK 1', 'client 2, stateless'].map(async (name) => {
    const client = await MANNERS[name]();
    const told = [];
    const options = { onprogress: ({ progress }) => told.push(progress), resetTimeoutOnProgress: true, timeout: PATIENCE };
    const ran = await (name === 'SDK 1' ? client.callTool(tool, undefined, options) : client.callTool(tool, options));
    assert.equal(ran.structuredContent.stdout, 'awake\n');
    assert.ok(told.length && told.every((progress, i) => i === 0 || progress > told[i - 1]), `${name}: ${told}`);
  }));
});

test('the stateless client that gives up ends its command', async () => {
  const client = await MANNERS['client 2, stateless']();
  const leave = new AbortController();
  await untilRunning(0);
  const call = client.callTool({ name: 'run_command', arguments: { command: 'sleep 200' } }, { signal: leave.signal });
  const ended = assert.rejects(call);
  await untilRunning(1);
  leave.abort();
  await ended;
  await untilRunning(0);
});

test('a wrong token', async () => {
  const transport = new newer.StreamableHTTPClientTransport(new URL(ADDRESS), { requestInit: { headers: { Authorization: 'Bearer sgt_x' } } });
  await assert.rejects(new newer.Client({ name: 'test', version: '1' }).connect(transport), /401|nauthorized/);
});
