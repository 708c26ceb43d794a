// The life of a sandbox: made, found, asked, paused, killed.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import test from 'node:test'
import { Sandbox, SandboxError, SandboxNotFoundError, TimeoutError } from '@e2b/code-interpreter'
import { pause, sandboxed, until } from './face.mjs'

const MINUTE = 60_000

// covers: Sandbox.create, Sandbox.get_info
test('a sandbox knows itself', async () => {
  const metadata = { test: randomUUID() }
  const sandbox = await Sandbox.create({ timeoutMs: 120_000, metadata })
  try {
    const info = await sandbox.getInfo()

    assert.equal(info.sandboxId, sandbox.sandboxId)
    assert.match(sandbox.sandboxId, /^[a-z0-9]+$/)
    assert.deepEqual(info.metadata, metadata)
    assert.equal(info.state, 'running')
    assert.ok(info.templateId)
    assert.ok(info.cpuCount >= 1)
    assert.ok(info.memoryMB > 0)
    assert.ok(Math.abs(info.startedAt - Date.now()) < MINUTE)
    const life = info.endAt - info.startedAt
    assert.ok(life > 119_000 && life < 122_000, `${life}`)
  } finally {
    await sandbox.kill()
  }
})

// covers: Sandbox.get_full_info
test('everything about a sandbox is told by its id', sandboxed(async (sandbox) => {
  const info = await Sandbox.getFullInfo(sandbox.sandboxId)

  assert.equal(info.sandboxId, sandbox.sandboxId)
  assert.ok(info.envdVersion)
}))

// covers: Sandbox.create
test('templates of the vendor are known', async () => {
  for (const template of ['base', 'code-interpreter-v1']) {
    const sandbox = await Sandbox.create(template)
    const result = await sandbox.runCode('6 * 7')
    await sandbox.kill()
    assert.equal(result.text, '42')
  }
})

test('an unknown template is refused', async () => {
  await assert.rejects(Sandbox.create('no-such-template'), SandboxError)
})

// covers: Sandbox.create
test('a sandbox has its environment variables everywhere', sandboxed(
  async (sandbox) => {
    const code = await sandbox.runCode("import os\nos.environ['COLOUR'], os.environ['EMPTY']")
    const command = await sandbox.commands.run('echo "$COLOUR,$EMPTY"')

    assert.equal(code.text, "('blue green', '')")
    assert.equal(command.stdout, 'blue green,\n')
  },
  { envs: { COLOUR: 'blue green', EMPTY: '' } },
))

// covers: Sandbox.kill, Sandbox.is_running
test('a killed sandbox is gone', async () => {
  const sandbox = await Sandbox.create()
  assert.equal(await sandbox.isRunning(), true)

  assert.equal(await sandbox.kill(), true)
  assert.equal(await sandbox.kill(), false)

  assert.equal(await sandbox.isRunning(), false)
  await assert.rejects(sandbox.getInfo(), SandboxNotFoundError)
  await assert.rejects(Sandbox.connect(sandbox.sandboxId), SandboxNotFoundError)
  await assert.rejects(sandbox.runCode('1'), TimeoutError)
  await assert.rejects(sandbox.commands.run('true'), Error)
  await assert.rejects(sandbox.files.read('/etc/hosts'), TimeoutError)
})

// covers: Sandbox.kill
test('a sandbox can be killed by its id', sandboxed(async (sandbox) => {
  assert.equal(await Sandbox.kill(sandbox.sandboxId), true)
  assert.equal(await sandbox.isRunning(), false)
  assert.equal(await Sandbox.kill('nosuchsandbox'), false)
}))

// covers: Sandbox.connect
test('one who connects finds the same state', sandboxed(async (sandbox) => {
  await sandbox.runCode("x = 'kept'")
  await sandbox.files.write('note.txt', 'on disk')

  const other = await Sandbox.connect(sandbox.sandboxId)
  const result = await other.runCode('x')
  const same = await sandbox.connect()

  assert.equal(other.sandboxId, sandbox.sandboxId)
  assert.equal(same.sandboxId, sandbox.sandboxId)
  assert.equal(result.text, 'kept')
  assert.equal(await other.files.read('note.txt'), 'on disk')
}))

// covers: Sandbox.connect, Sandbox.set_timeout
test('connecting lengthens a timeout and setting one may shorten it', sandboxed(
  async (sandbox) => {
    const left = async () => (await sandbox.getInfo()).endAt - Date.now()

    await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 10_000 })
    const kept = await left()
    await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 500_000 })
    const lengthened = await left()
    await sandbox.setTimeout(50_000)
    const shortened = await left()

    assert.ok(kept > 70_000, `${kept}`)
    assert.ok(lengthened > 470_000 && lengthened < 501_000, `${lengthened}`)
    assert.ok(shortened > 20_000 && shortened < 51_000, `${shortened}`)
  },
  { timeoutMs: 100_000 },
))

// covers: Sandbox.set_timeout
test('a sandbox ends at its timeout', sandboxed(async (sandbox) => {
  await sandbox.setTimeout(1000)

  await until(async () => !(await sandbox.isRunning()))
  await assert.rejects(sandbox.setTimeout(100_000), SandboxNotFoundError)
}))

// covers: Sandbox.list, paginator.next_items
test('a list has pages and filters', async () => {
  const metadata = { test: randomUUID(), n: 'a b&c=é' }
  const made = []
  const other = await Sandbox.create({ metadata: { ...metadata, n: 'other' } })
  try {
    for (let i = 0; i < 3; i += 1) made.push(await Sandbox.create({ metadata }))
    const pages = []
    const paginator = Sandbox.list({ query: { metadata }, limit: 2 })
    while (paginator.hasNext) {
      const page = await paginator.nextItems()
      pages.push(page.map((info) => info.sandboxId))
      assert.equal(Boolean(paginator.nextToken), paginator.hasNext)
    }
    const both = await Sandbox.list({ query: { metadata: { test: metadata.test } } }).nextItems()

    assert.deepEqual(pages.map((page) => page.length), [2, 1])
    assert.deepEqual(pages.flat().sort(), made.map((one) => one.sandboxId).sort())
    assert.equal(both.length, 4)
  } finally {
    for (const sandbox of [...made, other]) await sandbox.kill()
  }
})

// covers: Sandbox.list, Sandbox.pause
test('a list is filtered by state', async () => {
  const metadata = { test: randomUUID() }
  const running = await Sandbox.create({ metadata })
  const paused = await Sandbox.create({ metadata })
  const find = async (state) =>
    (await Sandbox.list({ query: { metadata, state } }).nextItems()).map((info) => info.sandboxId)
  try {
    await paused.pause()

    assert.deepEqual(await find(['running']), [running.sandboxId])
    assert.deepEqual(await find(['paused']), [paused.sandboxId])
    assert.equal((await find(['running', 'paused'])).length, 2)
    assert.equal((await find(undefined)).length, 2)
  } finally {
    await running.kill()
    await paused.kill()
  }
})

// covers: Sandbox.pause, Sandbox.connect
test('a paused sandbox goes on where it was', sandboxed(async (sandbox) => {
  await sandbox.runCode('x = 41')
  const command = await sandbox.commands.run('sleep 300', { background: true, timeoutMs: 0 })

  assert.equal(await sandbox.pause(), true)
  assert.equal(await sandbox.pause(), false)
  const info = await sandbox.getInfo()
  const wasRunning = await sandbox.isRunning()
  const resumed = await sandbox.connect()
  const result = await resumed.runCode('x + 1')
  const processes = await resumed.commands.list()

  assert.equal(info.state, 'paused')
  assert.equal(wasRunning, false)
  assert.equal(result.text, '42')
  assert.ok(processes.some((process) => process.pid === command.pid))
  await command.disconnect()
}))

// covers: Sandbox.beta_pause
test('the former name of pausing works', sandboxed(async (sandbox) => {
  assert.equal(await sandbox.betaPause(), true)
  assert.equal((await sandbox.getInfo()).state, 'paused')
}))

// covers: Sandbox.create
test('a sandbox may pause itself at its timeout', sandboxed(
  async (sandbox) => {
    await until(async () => (await sandbox.getInfo()).state === 'paused')
    const info = await sandbox.getInfo()
    const resumed = await sandbox.connect({ timeoutMs: 60_000 })

    assert.equal(info.lifecycle.onTimeout, 'pause')
    assert.equal((await resumed.runCode('1 + 1')).text, '2')
  },
  { timeoutMs: 1000, lifecycle: { onTimeout: 'pause' } },
))

// covers: Sandbox.create
test('a sandbox that paused itself may wake at a request', sandboxed(
  async (sandbox) => {
    await sandbox.runCode('x = 5')
    await until(async () => (await sandbox.getInfo()).state === 'paused')

    assert.equal((await sandbox.runCode('x')).text, '5')
  },
  { timeoutMs: 1000, lifecycle: { onTimeout: 'pause', autoResume: true } },
))

// covers: Sandbox.get_metrics
test('a sandbox is measured', sandboxed(async (sandbox) => {
  await sandbox.runCode('x = bytearray(50_000_000)')
  let metrics = []
  await until(async () => {
    metrics = await sandbox.getMetrics()
    return metrics.length > 0
  })
  const last = metrics.at(-1)

  assert.ok(last.cpuCount >= 1)
  assert.ok(last.cpuUsedPct >= 0)
  assert.ok(last.memUsed > 0 && last.memUsed <= last.memTotal)
  assert.ok(last.diskUsed >= 0 && last.diskUsed <= last.diskTotal)
  assert.ok(Math.abs(last.timestamp - Date.now()) < MINUTE)
  assert.deepEqual(await sandbox.getMetrics({ start: new Date(Date.now() + 24 * 60 * MINUTE) }), [])
}))

// covers: Sandbox.get_host
test('a server in a sandbox has a host name', sandboxed(async (sandbox) => {
  assert.ok(sandbox.getHost(3000).startsWith(`3000-${sandbox.sandboxId}.`))
}))

// covers: Sandbox.update_network
test('the network of a sandbox can be closed', sandboxed(async (sandbox) => {
  await sandbox.updateNetwork({ allowInternetAccess: false })

  assert.equal((await sandbox.runCode('1 + 1')).text, '2')
}))

test('wrong options are refused', sandboxed(async (sandbox) => {
  await assert.rejects(Sandbox.create({ timeoutMs: -5000 }), SandboxError)
  await assert.rejects(Sandbox.create({ timeoutMs: 10 ** 12 }), SandboxError)
  await assert.rejects(Sandbox.create({ envs: { 'A=B': 'x' } }), SandboxError)
  await assert.rejects(sandbox.setTimeout(-1000), SandboxError)
  await pause(0)
}))
