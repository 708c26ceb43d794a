// The helper for git, which composes commands.

import assert from 'node:assert/strict'
import test from 'node:test'
import { sandboxed } from './face.mjs'

async function repository(sandbox) {
  await sandbox.git.configureUser('Someone', 'someone@example.com')
  await sandbox.git.init('repo', { initialBranch: 'main' })
  await sandbox.files.write('repo/first.txt', 'one\n')
  await sandbox.git.add('repo')
  await sandbox.git.commit('repo', 'First')
}

// covers: git.init, git.add, git.commit, git.status, git.configure_user
test('changes are committed', sandboxed(async (sandbox) => {
  await repository(sandbox)
  await sandbox.files.write('repo/second.txt', 'two\n')

  const before = await sandbox.git.status('repo')
  await sandbox.git.add('repo', { files: ['second.txt'] })
  await sandbox.git.commit('repo', 'It\'s the "second"', {
    authorName: 'Other',
    authorEmail: 'other@example.com',
  })
  const after = await sandbox.git.status('repo')
  const log = await sandbox.commands.run("git -C repo log --format='%s|%an'")

  assert.equal(before.currentBranch, 'main')
  assert.equal(before.hasUntracked, true)
  assert.equal(after.isClean, true)
  assert.equal(log.stdout, 'It\'s the "second"|Other\nFirst|Someone\n')
}))

// covers: git.branches, git.create_branch, git.checkout_branch, git.delete_branch
test('branches come and go', sandboxed(async (sandbox) => {
  await repository(sandbox)

  await sandbox.git.createBranch('repo', 'side')
  const onSide = await sandbox.git.branches('repo')
  await sandbox.git.checkoutBranch('repo', 'main')
  await sandbox.git.deleteBranch('repo', 'side')

  assert.equal(onSide.currentBranch, 'side')
  assert.deepEqual([...onSide.branches].sort(), ['main', 'side'])
  assert.deepEqual((await sandbox.git.branches('repo')).branches, ['main'])
}))

// covers: git.clone, git.push, git.pull, git.remote_add, git.remote_get
test('repositories exchange commits', sandboxed(async (sandbox) => {
  await repository(sandbox)
  await sandbox.git.init('bare.git', { bare: true, initialBranch: 'main' })
  await sandbox.git.remoteAdd('repo', 'origin', '/home/user/bare.git')
  await sandbox.git.push('repo', { remote: 'origin', branch: 'main' })
  await sandbox.git.clone('/home/user/bare.git', { path: 'copy' })
  await sandbox.files.write('repo/later.txt', 'later\n')
  await sandbox.git.add('repo')
  await sandbox.git.commit('repo', 'Later')
  await sandbox.git.push('repo', { remote: 'origin', branch: 'main' })

  await sandbox.git.pull('copy')

  assert.equal(await sandbox.files.read('copy/later.txt'), 'later\n')
  assert.equal(await sandbox.git.remoteGet('repo', 'origin'), '/home/user/bare.git')
}))

// covers: git.reset, git.restore, git.set_config, git.get_config
test('changes are undone and settings kept', sandboxed(async (sandbox) => {
  await repository(sandbox)
  await sandbox.files.write('repo/first.txt', 'changed\n')
  await sandbox.git.restore('repo', { paths: ['first.txt'] })
  assert.equal(await sandbox.files.read('repo/first.txt'), 'one\n')

  await sandbox.files.write('repo/first.txt', 'changed\n')
  await sandbox.git.reset('repo', { mode: 'hard', target: 'HEAD' })
  assert.equal(await sandbox.files.read('repo/first.txt'), 'one\n')

  await sandbox.git.setConfig('core.editor', 'ed', { scope: 'local', path: 'repo' })
  const editor = await sandbox.git.getConfig('core.editor', { scope: 'local', path: 'repo' })
  assert.equal(editor, 'ed')
}))

// covers: git.dangerously_authenticate
test('credentials are stored for one host', sandboxed(async (sandbox) => {
  await sandbox.git.dangerouslyAuthenticate({
    username: 'someone',
    password: 'secret',
    host: 'example.com',
  })

  const result = await sandbox.commands.run(
    "printf 'protocol=https\\nhost=example.com\\n\\n' | git credential fill",
  )

  assert.match(result.stdout, /username=someone\npassword=secret\n/)
}))
