// Watching directories.

import assert from 'node:assert/strict'
import test from 'node:test'
import { FileNotFoundError, InvalidArgumentError, Sandbox } from '@e2b/code-interpreter'
import { sandboxed, until } from './face.mjs'

async function watch(sandbox, path, options = {}) {
  const events = []
  const handle = await sandbox.files.watchDir(path, (event) => {
    events.push(event)
  }, options)
  const seen = () => events.map((event) => `${event.type} ${event.name}`)
  const wait = (wanted) => until(() => seen().includes(wanted), () => seen().join(', '))
  return { events, handle, seen, wait }
}

// covers: files.watch_dir, watch.stop
test('what happens in a directory is told', sandboxed(async (sandbox) => {
  await sandbox.files.makeDir('d')
  const exits = []
  const watching = await watch(sandbox, 'd', {
    onExit: (error) => {
      exits.push(error)
    },
  })

  await sandbox.files.write('d/f', 'x')
  await watching.wait('write f')
  await sandbox.commands.run('chmod 600 d/f')
  await watching.wait('chmod f')
  await sandbox.files.rename('d/f', 'd/g')
  await watching.wait('create g')
  await sandbox.files.remove('d/g')
  await watching.wait('remove g')
  await watching.handle.stop()
  await until(() => exits.length > 0)

  const seen = watching.seen()
  assert.ok(seen.indexOf('create f') < seen.indexOf('write f'))
  assert.ok(seen.indexOf('write f') < seen.indexOf('rename f'))
  assert.ok(seen.indexOf('rename f') < seen.indexOf('create g'))
  // What it is called with is the SDK's own affair: it ends the request itself.
  assert.equal(exits.length, 1)
}))

test('only a recursive watch sees what is below', sandboxed(async (sandbox) => {
  await sandbox.files.makeDir('d/sub')
  const flat = await watch(sandbox, 'd')
  const deep = await watch(sandbox, 'd', { recursive: true })

  await sandbox.files.write('d/sub/f', 'x')
  await deep.wait('write sub/f')
  await sandbox.files.makeDir('d/new')
  await deep.wait('create new')
  await sandbox.files.write('d/new/f', 'x')
  await deep.wait('write new/f')
  await flat.wait('create new')

  assert.ok(!flat.events.some((event) => event.name.includes('/f')))
  await flat.handle.stop()
  await deep.handle.stop()
}))

test('an event may describe its file', sandboxed(async (sandbox) => {
  await sandbox.files.makeDir('d')
  const watching = await watch(sandbox, 'd', { includeEntry: true })

  await sandbox.files.write('d/f', '12345')
  await watching.wait('write f')

  const entry = watching.events.findLast((event) => event.type === 'write').entry
  assert.equal(entry.path, '/home/user/d/f')
  assert.equal(entry.owner, 'user')
  await watching.handle.stop()
}))

test('what is no directory cannot be watched', sandboxed(async (sandbox) => {
  await sandbox.files.write('f', '')

  await assert.rejects(sandbox.files.watchDir('missing', () => {}), FileNotFoundError)
  await assert.rejects(sandbox.files.watchDir('f', () => {}), InvalidArgumentError)
}))

test('a watch ends with its sandbox', async () => {
  const sandbox = await Sandbox.create()
  const exits = []
  await sandbox.files.watchDir('/tmp', () => {}, {
    onExit: (error) => {
      exits.push(error)
    },
  })

  await sandbox.kill()
  await until(() => exits.length > 0)

  assert.ok(exits[0] instanceof Error)
})
