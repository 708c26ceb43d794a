// ComputeSDK with its provider for E2B.

import assert from 'node:assert/strict'
import test from 'node:test'
import { e2b } from '@computesdk/e2b'

const provider = e2b({ apiKey: process.env.E2B_API_KEY })

function sandboxed(body) {
  return async () => {
    const sandbox = await provider.sandbox.create()
    try {
      await body(sandbox)
    } finally {
      await sandbox.destroy()
    }
  }
}

test('a command gives its output and its exit code', sandboxed(async (sandbox) => {
  const good = await sandbox.runCommand('echo out; echo err >&2')
  const bad = await sandbox.runCommand('exit 3')

  assert.deepEqual([good.stdout, good.stderr, good.exitCode], ['out\n', 'err\n', 0])
  assert.equal(bad.exitCode, 3)
}))

test('a command has variables and a directory', sandboxed(async (sandbox) => {
  const result = await sandbox.runCommand('printenv WORD; pwd', {
    env: { WORD: 'chosen' },
    cwd: '/tmp',
  })

  assert.equal(result.stdout, 'chosen\n/tmp\n')
  assert.equal(result.exitCode, 0)
}))

test('files are written read and listed', sandboxed(async (sandbox) => {
  await sandbox.filesystem.mkdir('/home/user/d')
  await sandbox.filesystem.writeFile('/home/user/d/f.txt', 'grüße')

  assert.equal(await sandbox.filesystem.readFile('/home/user/d/f.txt'), 'grüße')
  assert.equal(await sandbox.filesystem.exists('/home/user/d/f.txt'), true)
  const entries = await sandbox.filesystem.readdir('/home/user/d')
  assert.deepEqual(entries.map((entry) => entry.name), ['f.txt'])
  await sandbox.filesystem.remove('/home/user/d/f.txt')
  assert.equal(await sandbox.filesystem.exists('/home/user/d/f.txt'), false)
}))

test('a sandbox is found and listed by its id and gone in the end', async () => {
  const sandbox = await provider.sandbox.create()
  const found = await provider.sandbox.getById(sandbox.sandboxId)
  const listed = await provider.sandbox.list()

  assert.equal(found.sandboxId, sandbox.sandboxId)
  assert.ok(listed.some((one) => one.sandboxId === sandbox.sandboxId))

  await provider.sandbox.destroy(sandbox.sandboxId)

  assert.equal(await provider.sandbox.getById(sandbox.sandboxId), null)
})

test('a server in a sandbox has a url', sandboxed(async (sandbox) => {
  const url = await sandbox.getUrl({ port: 3000 })

  assert.ok(url.startsWith(`https://3000-${sandbox.sandboxId}.`))
}))
