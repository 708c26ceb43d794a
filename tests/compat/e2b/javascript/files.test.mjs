// Files and directories.

import assert from 'node:assert/strict'
import test from 'node:test'
import {
  AuthenticationError,
  FileNotFoundError,
  InvalidArgumentError,
  NotEnoughSpaceError,
  SandboxError,
} from '@e2b/code-interpreter'
import { sandboxed } from './face.mjs'

// A name that needs quoting everywhere.
const AWKWARD = 'a b/ü\'"$(x)&?#%41+;.txt'

// covers: files.write, files.read
test('a file is read as it was written', sandboxed(async (sandbox) => {
  const info = await sandbox.files.write('notes/first.txt', 'grüße\nline two\n')

  assert.equal(info.path, '/home/user/notes/first.txt')
  assert.equal(info.name, 'first.txt')
  assert.equal(info.type, 'file')
  assert.equal(await sandbox.files.read('notes/first.txt'), 'grüße\nline two\n')
  assert.equal(await sandbox.files.read('~/notes/first.txt'), 'grüße\nline two\n')
  const owner = await sandbox.commands.run("stat -c '%U %G' notes notes/first.txt")
  assert.equal(owner.stdout, 'user user\nuser user\n')
}))

// covers: files.read, files.write
test('a file is read in every format', sandboxed(async (sandbox) => {
  const content = Buffer.alloc(256_000, Buffer.from(Array.from({ length: 256 }, (_, i) => i)))
  await sandbox.files.write('data.bin', new Blob([content]))

  const whole = await sandbox.files.read('data.bin', { format: 'bytes' })
  const blob = await sandbox.files.read('data.bin', { format: 'blob' })
  const chunks = []
  for await (const chunk of await sandbox.files.read('data.bin', { format: 'stream' })) {
    chunks.push(chunk)
  }

  assert.ok(content.equals(whole))
  assert.ok(content.equals(Buffer.from(await blob.arrayBuffer())))
  assert.ok(content.equals(Buffer.concat(chunks)))
}))

// covers: files.write
test('large files go both ways in every form', sandboxed(async (sandbox) => {
  const content = Buffer.from(Array.from({ length: 500_000 }, (_, i) => `${i},`).join(''))
  const copy = () => new Blob([content])
  const stream = () => copy().stream()

  for (const [data, options] of [
    [copy(), {}],
    [copy(), { gzip: true }],
    [copy(), { useOctetStream: true }],
    [stream(), {}],
    [content.buffer.slice(content.byteOffset, content.byteOffset + content.length), {}],
  ]) {
    await sandbox.files.write('large', data, options)
    const read = await sandbox.files.read('large', { format: 'bytes', gzip: true })
    assert.ok(content.equals(read), JSON.stringify(options))
  }
}))

test('an awkward name is just a name', sandboxed(async (sandbox) => {
  await sandbox.files.write(AWKWARD, 'content')

  assert.equal(await sandbox.files.read(AWKWARD), 'content')
  assert.equal((await sandbox.files.list('a b'))[0].path, `/home/user/${AWKWARD}`)
}))

// covers: files.read
test('an empty file is empty', sandboxed(async (sandbox) => {
  await sandbox.files.write('empty', '')

  assert.equal(await sandbox.files.read('empty'), '')
  assert.equal((await sandbox.files.read('empty', { format: 'bytes' })).length, 0)
}))

// covers: files.write_files, files.write
test('several files are written at once', sandboxed(async (sandbox) => {
  const infos = await sandbox.files.writeFiles([
    { path: 'many/one.txt', data: '1' },
    { path: 'many/a b', data: '2' },
  ])
  const more = await sandbox.files.write([
    { path: 'many/three', data: new Blob(['3']) },
    { path: 'many/four', data: new Blob(['4']).stream() },
  ])

  assert.deepEqual(
    infos.map((info) => info.path),
    ['/home/user/many/one.txt', '/home/user/many/a b'],
  )
  assert.deepEqual(more.map((info) => info.name), ['three', 'four'])
  assert.equal(await sandbox.files.read('many/one.txt'), '1')
  assert.equal(await sandbox.files.read('many/a b'), '2')
  assert.equal(await sandbox.files.read('many/three'), '3')
  assert.equal(await sandbox.files.read('many/four'), '4')
  assert.deepEqual(await sandbox.files.writeFiles([]), [])
}))

// covers: files.write, files.get_info
test('a file has metadata', sandboxed(async (sandbox) => {
  const written = await sandbox.files.write('f', 'x', { metadata: { Author: 'me', kind: 'note' } })
  const info = await sandbox.files.getInfo('f')

  assert.deepEqual(written.metadata, { author: 'me', kind: 'note' })
  assert.deepEqual(info.metadata, { author: 'me', kind: 'note' })
}))

// covers: files.get_info
test('a file is described', sandboxed(async (sandbox) => {
  await sandbox.files.write('f.txt', '12345')
  await sandbox.commands.run('chmod 640 f.txt && ln -s f.txt link && mkdir d')

  const info = await sandbox.files.getInfo('f.txt')
  const link = await sandbox.files.getInfo('link')

  assert.equal(info.path, '/home/user/f.txt')
  assert.equal(info.type, 'file')
  assert.equal(Number(info.size), 5)
  assert.equal(info.mode, 0o640)
  assert.equal(info.permissions, '-rw-r-----')
  assert.deepEqual([info.owner, info.group], ['user', 'user'])
  assert.ok(Math.abs(info.modifiedTime - Date.now()) < 60_000)
  assert.equal(info.symlinkTarget, undefined)
  assert.equal(link.symlinkTarget, '/home/user/f.txt')
  assert.equal((await sandbox.files.getInfo('d')).type, 'dir')
}))

// covers: files.exists
test('it is told what exists', sandboxed(async (sandbox) => {
  await sandbox.files.write('d/f', '')

  assert.equal(await sandbox.files.exists('d/f'), true)
  assert.equal(await sandbox.files.exists('d'), true)
  assert.equal(await sandbox.files.exists('d/other'), false)
}))

// covers: files.list
test('a directory is listed to a depth', sandboxed(async (sandbox) => {
  for (const path of ['a', 'b/c', 'b/d/e']) await sandbox.files.write(`tree/${path}`, '')
  const paths = async (options) =>
    (await sandbox.files.list('tree', options))
      .map((entry) => entry.path.replace('/home/user/tree/', ''))
      .sort()

  assert.deepEqual(await paths(), ['a', 'b'])
  assert.deepEqual(await paths({ depth: 2 }), ['a', 'b', 'b/c', 'b/d'])
  assert.deepEqual(await paths({ depth: 10 }), ['a', 'b', 'b/c', 'b/d', 'b/d/e'])
  await assert.rejects(sandbox.files.list('tree/a'), InvalidArgumentError)
  await assert.rejects(sandbox.files.list('missing'), FileNotFoundError)
}))

// covers: files.make_dir
test('directories are made with their parents', sandboxed(async (sandbox) => {
  assert.equal(await sandbox.files.makeDir('x/y/z'), true)
  assert.equal(await sandbox.files.makeDir('x/y/z'), false)

  assert.equal((await sandbox.files.getInfo('x/y')).type, 'dir')
  await sandbox.files.write('f', '')
  await assert.rejects(sandbox.files.makeDir('f'), InvalidArgumentError)
}))

// covers: files.rename
test('a file is renamed', sandboxed(async (sandbox) => {
  await sandbox.files.write('old', 'content')

  const info = await sandbox.files.rename('old', 'new/place')

  assert.equal(info.path, '/home/user/new/place')
  assert.equal(await sandbox.files.exists('old'), false)
  assert.equal(await sandbox.files.read('new/place'), 'content')
  await assert.rejects(sandbox.files.rename('old', 'other'), FileNotFoundError)
}))

// covers: files.remove
test('files and directories are removed', sandboxed(async (sandbox) => {
  await sandbox.files.write('d/e/f', '')

  await sandbox.files.remove('d/e/f')
  assert.equal(await sandbox.files.exists('d/e/f'), false)
  await sandbox.files.remove('d')
  assert.equal(await sandbox.files.exists('d'), false)
  await sandbox.files.remove('never-was')
}))

test('what cannot be read is told', sandboxed(async (sandbox) => {
  await sandbox.files.makeDir('d')

  await assert.rejects(sandbox.files.read('missing'), FileNotFoundError)
  await assert.rejects(sandbox.files.read('missing', { format: 'stream' }), FileNotFoundError)
  await assert.rejects(sandbox.files.getInfo('missing'), FileNotFoundError)
  await assert.rejects(sandbox.files.read('d'), InvalidArgumentError)
  await assert.rejects(sandbox.files.read('f', { user: 'nobody-such' }), AuthenticationError)
  await assert.rejects(sandbox.files.write('d', 'x'), SandboxError)
}))

test('files are written everywhere and belong to who is named', sandboxed(async (sandbox) => {
  await sandbox.files.write('/root/secret', 'of root', { user: 'root' })
  assert.equal((await sandbox.files.getInfo('/root/secret', { user: 'root' })).owner, 'root')

  assert.equal(await sandbox.files.read('/root/secret'), 'of root')
  await sandbox.files.write('/app/deep/f', 'mine')
  await sandbox.commands.run('echo more >> /app/deep/f')
  assert.equal(await sandbox.files.read('/app/deep/f'), 'minemore\n')
  assert.equal((await sandbox.files.getInfo('/app/deep/f')).owner, 'user')
}))

test('a full disk is told', sandboxed(async (sandbox) => {
  await sandbox.commands.run('head -c 100G /dev/zero > filler 2>/dev/null || true', {
    timeoutMs: 0,
  })

  await assert.rejects(
    sandbox.files.write('f', new Blob([Buffer.alloc(5_000_000)])),
    NotEnoughSpaceError,
  )
}))
