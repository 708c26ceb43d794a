// Signed URLs, which a browser opens without any header.

import assert from 'node:assert/strict'
import test from 'node:test'
import { pause, sandboxed } from './face.mjs'

const form = (content) => {
  const body = new FormData()
  body.append('file', new Blob([content]), 'whatever.txt')
  return { method: 'POST', body }
}

// covers: Sandbox.download_url
test('a signed url gives the file', sandboxed(async (sandbox) => {
  await sandbox.files.write('a b.txt', 'content')

  for (const options of [{}, { useSignatureExpiration: 100 }, { user: 'user' }]) {
    const answer = await fetch(await sandbox.downloadUrl('a b.txt', options))
    assert.equal(answer.status, 200)
    assert.equal(await answer.text(), 'content')
  }
}))

// covers: Sandbox.upload_url
test('a signed url takes a file', sandboxed(async (sandbox) => {
  for (const options of [{}, { useSignatureExpiration: 100 }]) {
    const answer = await fetch(await sandbox.uploadUrl('in/taken.txt', options), form('sent'))
    assert.equal(answer.status, 200)
    assert.equal((await answer.json())[0].path, '/home/user/in/taken.txt')
    assert.equal(await sandbox.files.read('in/taken.txt'), 'sent')
  }
}))

test('an expired url is refused', sandboxed(async (sandbox) => {
  await sandbox.files.write('f', 'content')
  const url = await sandbox.downloadUrl('f', { useSignatureExpiration: 1 })
  await pause(2100)

  const answer = await fetch(url)

  assert.equal(answer.status, 401)
  assert.deepEqual(await answer.json(), { code: 401, message: 'signature is already expired' })
}))

test('a url that was changed is refused', sandboxed(async (sandbox) => {
  await sandbox.files.write('f', 'content')
  await sandbox.files.write('other', 'content')
  const url = await sandbox.downloadUrl('f', { useSignatureExpiration: 100 })

  for (const [name, value] of [
    ['path', 'other'],
    ['username', 'root'],
    ['signature', ''],
    ['signature_expiration', '99999999999'],
  ]) {
    const changed = new URL(url)
    changed.searchParams.set(name, value)
    const answer = await fetch(changed)
    assert.ok([401, 403, 404].includes(answer.status), `${name}: ${answer.status}`)
  }
  const written = await fetch(url, form('changed'))
  assert.ok([401, 403, 404].includes(written.status))
  assert.equal(await sandbox.files.read('f'), 'content')
}))
