// Rich results and charts.

import assert from 'node:assert/strict'
import test from 'node:test'
import { sandboxed } from './face.mjs'

async function onlyResult(sandbox, code) {
  const execution = await sandbox.runCode(code)
  assert.equal(execution.error, undefined)
  assert.equal(execution.results.length, 1)
  return execution.results[0]
}

test('every form has its field', sandboxed(async (sandbox) => {
  for (const [mime, field] of [
    ['text/html', 'html'],
    ['text/markdown', 'markdown'],
    ['image/svg+xml', 'svg'],
    ['text/latex', 'latex'],
    ['application/javascript', 'javascript'],
    ['image/png', 'png'],
    ['image/jpeg', 'jpeg'],
    ['application/pdf', 'pdf'],
  ]) {
    const result = await onlyResult(sandbox, `display({'${mime}': 'AAEC'}, raw=True)`)
    assert.equal(result[field], 'AAEC')
    assert.deepEqual(result.formats(), [field])
    assert.equal(result.isMainResult, false)
  }
}))

test('json and data frames are data', sandboxed(async (sandbox) => {
  const listed = await onlyResult(sandbox, "[1, 'two', {'three': None}]")
  const frame = await onlyResult(
    sandbox,
    `
import pandas as pd
pd.DataFrame({"name": ["a", "b"], "day": pd.to_datetime(["2024-01-02", "2024-03-04"])})
`,
  )

  assert.deepEqual(listed.json, [1, 'two', { three: null }])
  assert.deepEqual(frame.data.name, ['a', 'b'])
  assert.deepEqual(frame.data.day.map((day) => day.slice(0, 10)), ['2024-01-02', '2024-03-04'])
  assert.match(frame.html, /<table/)
}))

test('every type of chart is known', sandboxed(async (sandbox) => {
  for (const [code, type] of [
    ['plt.plot([1, 2], [3, 4])', 'line'],
    ['plt.scatter([1, 2], [3, 4])', 'scatter'],
    ["plt.bar(['a'], [1])", 'bar'],
    ["plt.pie([1, 3], labels=['a', 'b'])", 'pie'],
    ["plt.boxplot([[1, 2, 3, 4, 5, 20]], labels=['a'])", 'box_and_whisker'],
    ['a, (b, c) = plt.subplots(1, 2); b.plot([1, 2]); c.bar(["a"], [1])', 'superchart'],
    ['plt.imshow([[0, 1], [1, 0]])', 'unknown'],
  ]) {
    const result = await onlyResult(
      sandbox,
      `import matplotlib.pyplot as plt\n${code}\nplt.show()`,
    )
    assert.equal(result.chart.type, type)
    assert.ok(Array.isArray(result.chart.elements))
    assert.equal(Buffer.from(result.png, 'base64').subarray(1, 4).toString(), 'PNG')
  }
}))

test('the data of a line chart is exact', sandboxed(async (sandbox) => {
  const { chart } = await onlyResult(
    sandbox,
    `
import matplotlib.pyplot as plt
plt.plot([1, 2], [3, 4], label='s')
plt.xlabel('t (s)')
plt.title('L')
plt.show()
`,
  )

  assert.equal(chart.title, 'L')
  assert.deepEqual(chart.elements, [{ label: 's', points: [[1, 3], [2, 4]] }])
  assert.deepEqual([chart.x_label, chart.x_unit, chart.y_label], ['t (s)', 's', null])
  assert.equal(chart.x_scale, 'linear')
  assert.equal(chart.x_ticks.length, chart.x_tick_labels.length)
}))
