// Keys that are wrong, and sandboxes of another tenant.

import assert from 'node:assert/strict'
import test from 'node:test'
import { AuthenticationError, Sandbox, SandboxNotFoundError } from '@e2b/code-interpreter'
import { STRANGER, URL_OF_SERVICE, sandboxed } from './face.mjs'

test('a wrong key is refused', async () => {
  const wrong = { apiKey: `e2b_${'0'.repeat(40)}` }

  await assert.rejects(Sandbox.create(wrong), AuthenticationError)
  await assert.rejects(Sandbox.list(wrong).nextItems(), AuthenticationError)
})

test('a sandbox does not exist for another tenant', sandboxed(async (sandbox) => {
  const id = sandbox.sandboxId

  await assert.rejects(Sandbox.connect(id, STRANGER), SandboxNotFoundError)
  await assert.rejects(Sandbox.getInfo(id, STRANGER), SandboxNotFoundError)
  await assert.rejects(Sandbox.setTimeout(id, 1000, STRANGER), SandboxNotFoundError)
  await assert.rejects(Sandbox.pause(id, STRANGER), SandboxNotFoundError)
  assert.equal(await Sandbox.kill(id, STRANGER), false)
  const page = await Sandbox.list(STRANGER).nextItems()
  assert.ok(!page.some((info) => info.sandboxId === id))
  assert.equal(await sandbox.isRunning(), true)
}))

test('the id of a sandbox is not enough', sandboxed(async (sandbox) => {
  for (const token of [undefined, '', 'wrong']) {
    const headers = {
      'E2b-Sandbox-Id': sandbox.sandboxId,
      'E2b-Sandbox-Port': '49983',
      'Content-Type': 'application/json',
      ...(token === undefined ? {} : { 'X-Access-Token': token }),
    }
    const post = { method: 'POST', headers, body: '{}' }
    const answers = await Promise.all([
      fetch(`${URL_OF_SERVICE}/process.Process/List`, post),
      fetch(`${URL_OF_SERVICE}/filesystem.Filesystem/Stat`, { ...post, body: '{"path":"/"}' }),
      fetch(`${URL_OF_SERVICE}/files?path=/etc/passwd`, { headers }),
      fetch(`${URL_OF_SERVICE}/execute`, {
        ...post,
        headers: { ...headers, 'E2b-Sandbox-Port': '49999' },
        body: '{"code":"1"}',
      }),
    ])
    for (const answer of answers) {
      assert.ok([401, 403].includes(answer.status), `${answer.url} ${answer.status}`)
      assert.doesNotMatch(await answer.text(), /root:/)
    }
  }
}))
