// Servers of users in a sandbox, and what is not offered.

import assert from 'node:assert/strict'
import { get } from 'node:http'
import test from 'node:test'
import { SandboxError } from '@e2b/code-interpreter'
import { URL_OF_SERVICE, sandboxed, until } from './face.mjs'

// fetch() sets the host's name itself, so this is a plain request.
function fetchFrom(host) {
  return new Promise((resolve, reject) => {
    get(URL_OF_SERVICE, { headers: { host } }, async (answer) => {
      let text = ''
      for await (const chunk of answer) text += chunk
      resolve({ status: answer.statusCode, text })
    }).on('error', reject)
  })
}

// covers: Sandbox.get_host
test('a server is reached by its host name', sandboxed(async (sandbox) => {
  await sandbox.files.write('site/index.html', 'served')
  await sandbox.commands.run('python3 -m http.server 3000 --directory site', {
    background: true,
    timeoutMs: 0,
  })
  await until(async () => (await fetchFrom(sandbox.getHost(3000))).status === 200)

  assert.equal((await fetchFrom(sandbox.getHost(3000))).text, 'served')
  assert.equal((await fetchFrom(sandbox.getHost(3001))).status, 502)
}))

test('what is not offered is refused at once and by name', sandboxed(async (sandbox) => {
  await assert.rejects(sandbox.createSnapshot(), (error) => {
    assert.ok(error instanceof SandboxError)
    assert.equal(error.statusCode, 501)
    assert.match(error.message, /snapshot/)
    return true
  })
  await assert.rejects(sandbox.fork(), SandboxError)
  assert.equal(await sandbox.isRunning(), true)
}))
