# The loop of an R context: waits for "go", evaluates the order, says what came of it.
#
# User code shares this R. So all of this is in an environment of its own, below base R, which user
# code neither sees nor changes by chance. Interrupts are suspended but while user code runs, and so
# is the compiler: it would need longer for these functions than they ever run. Results and errors go
# to the channel; everything else R writes by itself.
arguments <- commandArgs(trailingOnly = TRUE)
channel <- as.integer(arguments[1L])
order_file <- paste0("/dev/fd/", arguments[2L])
# The functions of package utils for sockets take any descriptor of one.
socket_read <- utils:::C_sockread
socket_write <- utils:::C_sockwrite

MAX_REPRESENTATION <- 8 * 1024^2
MAX_LINE <- 15 * 1024^2
MAX_TEXT <- 256 * 1024
MAX_ROWS <- 60L
MAX_COLUMNS <- 20L
MAX_CALLS <- 40L
MAX_WARNINGS <- 50L

# --- the channel --------------------------------------------------------------------------------

received <- ""

# Gives the next line; the end of the channel ends R, as the driver is gone.
await_line <- function() {
  while (!grepl("\n", received, fixed = TRUE)) {
    text <- .Call(socket_read, channel, 4096L)
    if (!nzchar(text)) quit("no")
    received <<- paste0(received, text)
  }
  line <- sub("\n.*", "", received)
  received <<- sub("[^\n]*\n", "", received)
  line
}

say <- function(line) {
  line <- paste0(line, "\n")
  repeat {
    written <- .Call(socket_write, channel, line)
    if (written < 0L) quit("no")
    if (written >= nchar(line, "bytes")) break
    line <- substring(line, written + 1L)
  }
}

# --- JSON ---------------------------------------------------------------------------------------

# Makes one valid string in UTF-8 of whatever a condition or a class gives.
as_text <- function(value) {
  text <- tryCatch(paste(as.character(value), collapse = "\n"), error = function(e) "")
  text <- tryCatch(enc2utf8(text), error = function(e) rawToChar(charToRaw(text)))
  if (!validUTF8(text)) text <- iconv(text, "UTF-8", "UTF-8", sub = "\ufffd")
  if (is.na(text)) "" else text
}

shorten <- function(text, size = MAX_TEXT) {
  if (nchar(text) > size) paste0(substr(text, 1L, size), "...") else text
}

escape_code <- function(code) {
  if (is.na(code)) return("\\ufffd")
  if (code == 34L) return("\\\"")
  if (code == 92L) return("\\\\")
  if (code == 10L) return("\\n")
  if (code >= 32L && code < 127L) return(intToUtf8(code))
  if (code < 65536L) return(sprintf("\\u%04x", code))
  code <- code - 65536L
  sprintf("\\u%04x\\u%04x", 55296L + code %/% 1024L, 56320L + code %% 1024L)
}

# ASCII only, so that no locale that user code sets can change it on its way.
json_string <- function(text) {
  if (!grepl("[^ !#-[^-~]|]", text, useBytes = TRUE)) return(paste0("\"", text, "\""))
  codes <- utf8ToInt(text)
  different <- unique(codes)
  escaped <- vapply(different, escape_code, "")
  paste0("\"", paste(escaped[match(codes, different)], collapse = ""), "\"")
}

json_object <- function(fields) {
  names <- vapply(names(fields), json_string, "")
  paste0("{", paste(names, unlist(fields), sep = ":", collapse = ","), "}")
}

alphabet <- charToRaw("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")

base64 <- function(bytes) {
  padding <- -length(bytes) %% 3L
  triples <- matrix(as.integer(c(bytes, raw(padding))), nrow = 3L)
  numbers <- triples[1L, ] * 65536L + triples[2L, ] * 256L + triples[3L, ]
  places <- c(262144L, 4096L, 64L, 1L)
  digits <- alphabet[outer(places, numbers, function(place, n) n %/% place %% 64L) + 1L]
  if (padding > 0L) digits[length(digits) + 1L - seq_len(padding)] <- charToRaw("=")
  rawToChar(digits)
}

# --- results ------------------------------------------------------------------------------------

# Sends a bundle; forms that are too large are left out and named with their size.
display <- function(bundle, is_main) {
  sizes <- vapply(bundle, nchar, 0, type = "bytes")
  encoded <- list()
  for (mime in names(bundle)[order(sizes)]) {
    if (sizes[[mime]] > MAX_REPRESENTATION) next
    form <- json_string(bundle[[mime]])
    if (sum(nchar(encoded), nchar(form)) < MAX_LINE) encoded[[mime]] <- form
  }
  left_out <- setdiff(names(bundle), names(encoded))
  omitted <- as.list(vapply(sizes[left_out], format, "", scientific = FALSE))
  say(json_object(list(
    type = "\"result\"", bundle = json_object(encoded), omitted = json_object(omitted),
    is_main = if (is_main) "true" else "false"
  )))
  while (await_line() != "ack") NULL
}

# Gives what printing a value writes, as autoprint would: with the methods of user code.
print_to_text <- function(value) {
  depth <- sink.number()
  content <- rawConnection(raw(0L), "wb")
  surroundings <- new.env(parent = globalenv())
  surroundings$x <- value
  sink(content)
  on.exit({
    while (sink.number() > depth) sink()
    close(content)
  })
  as_user(eval(quote(print(x)), surroundings))
  text <- rawToChar(rawConnectionValue(content))
  Encoding(text) <- "UTF-8"
  sub("\n$", "", as_text(text))
}

escape_html <- function(text) {
  text <- gsub("&", "&amp;", as_text_each(text), fixed = TRUE)
  gsub(">", "&gt;", gsub("<", "&lt;", text, fixed = TRUE), fixed = TRUE)
}

as_text_each <- function(texts) vapply(as.list(texts), as_text, "")

html_row <- function(name, cells, tag = "td") {
  cells <- paste0("<", tag, ">", cells, "</", tag, ">", collapse = "")
  paste0("<tr><th>", name, "</th>", cells, "</tr>\n")
}

# Gives a data frame as a table, of a large one the first and the last rows.
table_html <- function(frame) {
  size <- dim(frame)
  columns <- seq_len(min(size[2L], MAX_COLUMNS))
  half <- MAX_ROWS %/% 2L
  is_long <- size[1L] > MAX_ROWS
  rows <- if (is_long) c(seq_len(half), size[1L] - rev(seq_len(half)) + 1L) else seq_len(size[1L])
  shown <- as.data.frame(frame)[rows, columns, drop = FALSE]
  cells <- trimws(as.matrix(format(shown)))
  header <- html_row("", escape_html(names(shown)), "th")
  body <- vapply(seq_along(rows), function(row) {
    html_row(escape_html(rownames(shown)[row]), escape_html(cells[row, ]))
  }, "")
  if (is_long) body <- append(body, html_row("&#8942;", rep("&#8942;", length(columns))), half)
  note <- paste0("<p>", size[1L], " rows, ", size[2L], " columns</p>\n")
  if (!is_long && size[2L] <= MAX_COLUMNS) note <- ""
  paste0(
    "<table class=\"dataframe\">\n<thead>\n", header, "</thead>\n<tbody>\n",
    paste(body, collapse = ""), "</tbody>\n</table>\n", note
  )
}

show_value <- function(value, is_main) {
  pages <- list_pages()
  text <- print_to_text(value)
  if (!nzchar(text)) {
    # Printing drew a picture, as lattice does, or nothing at all.
    if (is_main) main_page <<- setdiff(list_pages(), pages)
    return()
  }
  bundle <- list("text/plain" = text)
  if (is.data.frame(value) && length(value) > 0L) {
    html <- tryCatch(table_html(value), error = function(e) NULL)
    if (!is.null(html)) bundle[["text/html"]] <- html
  }
  display(bundle, is_main)
}

# --- pictures -----------------------------------------------------------------------------------

# The devices that were opened for this execution: number, directory of the pages, their name.
devices <- list()
shown_pages <- character()
main_page <- character()

plot_option <- function(name, usual) {
  value <- getOption(paste0("repr.plot.", name))
  if (is.numeric(value) && length(value) == 1L && isTRUE(value > 0)) value else usual
}

# What R calls when something is drawn and no device is open.
open_device <- function(...) {
  directory <- tempfile("plots")
  dir.create(directory, mode = "0700")
  path <- file.path(directory, "page%05d.png")
  grDevices::png(
    path, plot_option("width", 7), plot_option("height", 7), units = "in",
    res = plot_option("res", 120), type = "cairo"
  )
  device <- list(number = grDevices::dev.cur(), directory = directory, path = path)
  devices[[length(devices) + 1L]] <<- device
}

# The number may belong to another device by now, which is not ours to close.
is_open <- function(device) {
  listed <- get(".Devices", baseenv())
  number <- device$number
  number <= length(listed) && identical(attr(listed[[number]], "filepath"), device$path)
}

list_pages <- function(is_finished = FALSE) {
  unlist(lapply(devices, function(device) {
    pages <- list.files(device$directory, full.names = TRUE)
    if (is_finished && is_open(device)) pages[-length(pages)] else pages
  }))
}

show_pages <- function() {
  for (page in setdiff(list_pages(is_finished = TRUE), shown_pages)) {
    shown_pages <<- c(shown_pages, page)
    bytes <- readBin(page, "raw", file.size(page))
    if (length(bytes) < 24L) next
    size <- readBin(bytes[17:24], "integer", 2L, endian = "big")
    text <- sprintf("<Plot of %dx%d pixels>", size[1L], size[2L])
    display(list("text/plain" = text, "image/png" = base64(bytes)), page %in% main_page)
  }
}

# Ends the pictures of an execution; a device that user code opened stays as it is.
finish_pages <- function() {
  current <- grDevices::dev.cur()
  for (device in Filter(is_open, devices)) grDevices::dev.off(device$number)
  if (current %in% grDevices::dev.list()) grDevices::dev.set(current)
  show_pages()
  unlink(vapply(devices, `[[`, "", "directory"), recursive = TRUE)
  devices <<- list()
  shown_pages <<- main_page <<- character()
}

# --- warnings and errors ------------------------------------------------------------------------

# How user code is entered: what comes after the last of these calls on the stack is the user's.
ENTRIES <- list(quote(eval(expression, globalenv())), quote(eval(quote(print(x)), surroundings)))
is_entry <- function(call) any(vapply(ENTRIES, identical, NA, call))

call_text <- function(call) {
  if (is.null(call) || is_entry(call)) return("")
  shorten(as_text(tryCatch(deparse(call, nlines = 1L)[1L], error = function(e) "")), 200L)
}

message_of <- function(condition) {
  shorten(as_text(tryCatch(conditionMessage(condition), error = function(e) "")))
}

warned <- character()
warned_count <- 0L

# Keeps a warning for the end of the expression, as R does unless option warn says otherwise.
keep_warning <- function(condition) {
  level <- getOption("warn")
  if (!is.numeric(level) || length(level) != 1L || is.na(level)) level <- 0
  if (level >= 2) return()
  if (level >= 1) {
    call <- call_text(conditionCall(condition))
    head <- if (nzchar(call)) paste("Warning in", call, ": ") else "Warning: "
    cat(head, message_of(condition), "\n", file = stderr(), sep = "")
  } else if (level >= 0) {
    warned_count <<- warned_count + 1L
    if (warned_count <= MAX_WARNINGS) warned[warned_count] <<- warning_text(condition)
  }
  tryInvokeRestart("muffleWarning")
}

warning_text <- function(condition) {
  text <- message_of(condition)
  call <- call_text(conditionCall(condition))
  if (!nzchar(call)) return(text)
  first <- sub("\n.*", "", text)
  is_long <- nchar(call, "width") + nchar(first, "width") + 6L > 77L
  paste0("In ", call, " :", if (is_long) "\n  " else " ", text)
}

write_warnings <- function() {
  count <- warned_count
  if (count == 0L) return()
  texts <- warned
  warned <<- character()
  warned_count <<- 0L
  head <- if (count == 1L) "Warning message:" else "Warning messages:"
  if (count > 1L) texts <- paste0(seq_along(texts), ": ", texts)
  if (count > MAX_WARNINGS) {
    head <- sprintf("There were %d warnings. The first %d are:", count, MAX_WARNINGS)
  }
  cat(c(head, texts), file = stderr(), sep = "\n")
}

failed_calls <- list()

# Remembers the calls of user code that led to an error.
keep_calls <- function(condition) {
  calls <- sys.calls()
  entry <- max(0L, which(vapply(utils::head(calls, 100L), is_entry, NA)))
  calls <- calls[seq_along(calls) > entry]
  # The rest is how R calls this function.
  own <- which(vapply(calls, function(call) list(call[[1L]]) %in% HANDLERS, NA))
  failed_calls <<- calls[seq_len(min(own, length(calls)) - 1L)]
}
HANDLERS <- lapply(c(".handleSimpleError", ".signalSimpleWarning"), as.name)

traceback_text <- function(headline) {
  count <- length(failed_calls)
  chosen <- seq_len(count)
  half <- MAX_CALLS %/% 2L
  if (count > MAX_CALLS) chosen <- c(seq_len(half), count + 1L - rev(seq_len(half)))
  lines <- paste0(format(chosen), ": ", vapply(failed_calls[chosen], call_text, ""))
  if (count > MAX_CALLS) lines <- append(lines, "   ...", half)
  paste(c(headline, if (count > 0L) c("Calls, the outermost first:", lines)), collapse = "\n")
}

describe_error <- function(condition) {
  text <- message_of(condition)
  call <- call_text(conditionCall(condition))
  headline <- if (nzchar(call)) paste0("Error in ", call, " : ", text) else paste("Error:", text)
  list(name = as_text(class(condition)[1L]), value = text, traceback = traceback_text(headline))
}

syntax_error <- function(text) {
  list(name = "SyntaxError", value = text, traceback = paste("Error:", text))
}

# --- one execution ------------------------------------------------------------------------------

# Gives the order: directory, variables and the bytes of the code; see fields.py.
read_order <- function() {
  bytes <- readBin(order_file, "raw", file.size(order_file))
  ends <- which(bytes == as.raw(0L))
  field <- function(number) {
    start <- if (number == 1L) 1L else ends[number - 1L] + 1L
    text <- rawToChar(bytes[seq_len(ends[number] - start) + start - 1L])
    Encoding(text) <- "UTF-8"
    text
  }
  count <- as.integer(field(2L))
  pairs <- vapply(seq_len(count) + 2L, field, "")
  start <- ends[count + 2L]
  list(
    cwd = field(1L), code = bytes[seq_len(length(bytes) - start) + start],
    env = structure(sub("^[^=]*=", "", pairs), names = sub("=.*", "", pairs))
  )
}

set_variables <- function(values) {
  gone <- names(values)[is.na(values)]
  kept <- values[!is.na(values)]
  if (length(gone) > 0L) Sys.unsetenv(gone)
  if (length(kept) > 0L) do.call(Sys.setenv, as.list(kept))
}

parse_code <- function(bytes) {
  if (any(bytes == as.raw(0L))) stop("the code has a character NUL")
  text <- rawToChar(bytes)
  Encoding(text) <- "UTF-8"
  if (!validUTF8(text)) stop("the code is not UTF-8")
  parse(text = text, keep.source = TRUE, encoding = "UTF-8")
}

compiler_level <- .Internal(enableJIT(0L))

as_user <- function(code) {
  .Internal(enableJIT(compiler_level))
  on.exit(compiler_level <<- .Internal(enableJIT(0L)))
  allowInterrupts(code)
}

run_expressions <- function(expressions) {
  for (index in seq_along(expressions)) {
    expression <- expressions[[index]]
    outcome <- as_user(withVisible(eval(expression, globalenv())))
    if (outcome$visible) show_value(outcome$value, index == length(expressions))
    write_warnings()
    show_pages()
  }
}

# Runs the code; gives an error or NULL, or ends it with a status of its own.
run_code <- function(bytes) {
  expressions <- tryCatch(parse_code(bytes), error = function(e) syntax_error(message_of(e)))
  if (is.list(expressions)) return(expressions)
  depth <- sink.number()
  failed_calls <<- list()
  on.exit(write_warnings())
  error <- tryCatch(
    withCallingHandlers(
      {
        run_expressions(expressions)
        NULL
      },
      error = keep_calls, warning = keep_warning
    ),
    error = function(e) e
  )
  if (is.null(error)) NULL else describe_error(error)
}

# Calls a function that an interrupt, or R's own way out to the prompt, ends early.
guard <- function(run) {
  withRestarts(
    tryCatch(run(), interrupt = function(e) list(status = "interrupted")),
    abort = function() list(status = "error")
  )
}

execute <- function() {
  order <- read_order()
  former <- Sys.getenv(names(order$env), unset = NA, names = TRUE)
  directory <- getwd()
  set_variables(order$env)
  if (nzchar(order$cwd)) setwd(order$cwd)
  # An interrupt that came too late for other code.
  guard(function() allowInterrupts(Sys.sleep(0)))
  say("{\"type\":\"begun\"}")
  outcome <- guard(function() list(error = run_code(order$code)))
  try(finish_pages(), silent = TRUE)
  set_variables(former)
  if (nzchar(order$cwd) && !is.null(directory)) try(setwd(directory), silent = TRUE)
  error <- outcome$error
  if (!is.null(error)) {
    say(json_object(c(list(type = "\"error\""), lapply(error, json_string))))
    outcome$status <- "error"
  }
  status <- if (is.null(outcome$status)) "ok" else outcome$status
  say(sprintf("{\"type\":\"done\",\"status\":\"%s\",\"exit_code\":null}", status))
}

serve <- function() {
  while (await_line() == "go") execute()
}

options(device = open_device, keep.source = TRUE)
# Whatever ends the loop early, the next "go" finds it again.
repeat guard(function() suspendInterrupts(serve()))
