// A reporter for Node's test runner: one line of JSON per test that has ended.

import { basename } from 'node:path'
import { inspect } from 'node:util'

const printed = new Map()

export default async function* reportLines(events) {
  for await (const { type, data } of events) {
    if (type === 'test:stdout' || type === 'test:stderr') {
      printed.set(data.file, ((printed.get(data.file) ?? '') + data.message).slice(-4000))
    } else if ((type === 'test:pass' || type === 'test:fail') && data.nesting === 0) {
      yield JSON.stringify(line(type === 'test:pass', data)) + '\n'
    }
  }
}

function line(passed, data) {
  // A test that skips itself has not passed.
  const skipped = data.skip !== undefined || data.todo !== undefined
  const told = passed ? '' : inspect(data.details.error?.cause ?? data.details.error, { depth: 5 })
  const text = `${told}\n-- printed by its file --\n${printed.get(data.file) ?? ''}`
  const failed = !passed || skipped
  return { file: basename(data.file), name: data.name, passed: !failed, text: failed ? text : '' }
}
