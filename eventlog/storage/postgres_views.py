"""Views that make events readable in ``psql``: what the bytes of a log say, as rows and JSON.

Owns the SQL that reads records; nothing in the engine reads through it, and it changes nothing. Functions are
``plpgsql`` and immutable. What the bytes of a record mean is said in `records`, `delta` and `codec`.

```
 runs    run, created, codec
 events  run, branch, step, id, task, time, meta, writes, key                 a row for each event
 writes  run, branch, step, id, task, time, channel, operation, value, key, n   a row for each channel that it writes
```

The events of a branch are in the order of `key`, in which it wrote them; `n` counts what one writes, from 1.

A run whose name has several parts is shown as a JSON array of them. An event stands once, under the name of the run
that wrote it. Writes are JSON that keeps order and numbers as they are: a value that was set is itself, any other
operation is ``{"$type": "Extend", "items": [...]}``, ``"Splice"`` with ``edits``, ``"Merge"`` with ``changes``,
``"AppendText"`` with ``text``, or ``"Delete"``. What JSON has no word for is shown by its type: bytes as ``{"$b64":
...}``, a tuple as ``{"$type": "tuple", "$items": [...]}``, an object of somebody's class as ``{"$type": its tag,
"value": ...}``, a dict whose keys are not all strings as ``{"$dict": [[key, value], ...]}``. What cannot be read, or is
encrypted, is its type and its bytes; a string with a NUL, which PostgreSQL cannot hold, too.
"""

from __future__ import annotations

from typing import Final


def views_of(quoted: str) -> str:
    """The statements that make the views of a log, or make them anew, in the schema of that quoted name."""
    statements = _QUICKLY + _BYTES + _VALUES + _EXTENSIONS + _CODECS + _OPERATIONS + _EVENTS + _VIEWS
    return statements.replace("LOG.", f"{quoted}.")


_QUICKLY: Final = "SET LOCAL check_function_bodies = off;"
"""Half of the time that making the functions takes."""


_BYTES: Final = r"""
CREATE OR REPLACE FUNCTION LOG.uint(data bytea, at int, size int) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$
  SELECT ('x' || lpad(encode(substr(data, at + 1, size), 'hex'), 16, '0'))::bit(64)::bigint
$$;

CREATE OR REPLACE FUNCTION LOG.big(data bytea, signed boolean) RETURNS numeric IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  total numeric := 0;
BEGIN
  FOR i IN 0..length(data) - 1 LOOP
    total := total * 256 + get_byte(data, i);
  END LOOP;
  IF signed AND get_byte(data, 0) > 127 THEN
    total := total - 256::numeric ^ length(data);
  END IF;
  RETURN trunc(total);
END $$;

CREATE OR REPLACE FUNCTION LOG.b64(data bytea) RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT '{"$b64": "' || replace(encode(data, 'base64'), E'\n', '') || '"}'
$$;

CREATE OR REPLACE FUNCTION LOG.typed_bytes(type text, data bytea) RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT '{"$type": ' || to_json(type)::text || ', ' || substr(LOG.b64(data), 2)
$$;

CREATE OR REPLACE FUNCTION LOG.string(data bytea) RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT CASE WHEN position('\x00'::bytea IN data) > 0 THEN LOG.typed_bytes('str', data)
    ELSE to_json(convert_from(data, 'UTF8'))::text END
$$;

CREATE OR REPLACE FUNCTION LOG.words(data bytea) RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT CASE WHEN position('\x00'::bytea IN data) > 0 THEN encode(data, 'escape')
    ELSE convert_from(data, 'UTF8') END
$$;

CREATE OR REPLACE FUNCTION LOG.float(data bytea) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  bits bigint := LOG.uint(data, 0, 8);
  exponent int := (bits >> 52) & 2047;
  fraction bigint := bits & 4503599627370495;
  sign text := CASE WHEN bits < 0 THEN '-' ELSE '' END;
  shown text;
BEGIN
  IF exponent = 2047 THEN
    RETURN '{"$float": "' || CASE WHEN fraction <> 0 THEN 'nan' ELSE sign || 'inf' END || '"}';
  ELSIF exponent = 0 AND fraction = 0 THEN
    RETURN sign || '0.0';
  ELSIF exponent = 0 THEN
    shown := (fraction::float8 * power(2::float8, -1074))::text;
  ELSE
    shown := ((fraction | 4503599627370496)::float8 * power(2::float8, exponent - 1075))::text;
  END IF;
  RETURN sign || shown || CASE WHEN shown ~ '[.e]' THEN '' ELSE '.0' END;
END $$;

CREATE OR REPLACE FUNCTION LOG.token(
  data bytea, at int, OUT kind text, OUT number numeric, OUT size int, OUT start int, OUT next int
) IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  head int := get_byte(data, at);
  width int;
BEGIN
  start := at + 1;
  size := 0;
  CASE
    WHEN head < 128 THEN kind := 'int'; number := head;
    WHEN head < 144 THEN kind := 'map'; size := head - 128;
    WHEN head < 160 THEN kind := 'array'; size := head - 144;
    WHEN head < 192 THEN kind := 'str'; size := head - 160;
    WHEN head = 192 THEN kind := 'nil';
    WHEN head IN (194, 195) THEN kind := 'bool'; number := head - 194;
    WHEN head BETWEEN 196 AND 201 THEN
      width := 1 << ((head - 196) % 3);
      size := LOG.uint(data, start, width);
      start := start + width;
      kind := 'bin';
      IF head > 198 THEN
        kind := 'ext';
        number := get_byte(data, start);
        start := start + 1;
      END IF;
    WHEN head = 203 THEN kind := 'float'; size := 8;
    WHEN head BETWEEN 204 AND 211 THEN
      kind := 'int';
      width := 1 << ((head - 204) % 4);
      number := LOG.big(substr(data, start + 1, width), head > 207);
      start := start + width;
    WHEN head BETWEEN 212 AND 216 THEN
      kind := 'ext';
      number := get_byte(data, start);
      start := start + 1;
      size := 1 << (head - 212);
    WHEN head BETWEEN 217 AND 223 THEN
      kind := CASE WHEN head < 220 THEN 'str' WHEN head < 222 THEN 'array' ELSE 'map' END;
      width := CASE WHEN head < 220 THEN 1 << (head - 217) ELSE 2 << (head % 2) END;
      size := LOG.uint(data, start, width);
      start := start + width;
    WHEN head > 223 THEN kind := 'int'; number := head - 256;
    ELSE RAISE EXCEPTION 'no value begins with byte %', head;
  END CASE;
  next := start + CASE WHEN kind IN ('array', 'map') THEN 0 ELSE size END;
END $$;
"""
"""Numbers, strings and heads of msgpack. A token of a list or dict ends before its first item."""

_VALUES: Final = r"""
CREATE OR REPLACE FUNCTION LOG.value_at(data bytea, at int, own boolean, OUT shown text, OUT next int)
IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  t record;
BEGIN
  t := LOG.token(data, at);
  next := t.next;
  CASE t.kind
    WHEN 'nil' THEN shown := 'null';
    WHEN 'bool' THEN shown := CASE WHEN t.number = 1 THEN 'true' ELSE 'false' END;
    WHEN 'int' THEN shown := t.number::text;
    WHEN 'float' THEN shown := LOG.float(substr(data, t.start + 1, 8));
    WHEN 'str' THEN shown := LOG.string(substr(data, t.start + 1, t.size));
    WHEN 'bin' THEN shown := LOG.b64(substr(data, t.start + 1, t.size));
    WHEN 'ext' THEN
      IF own THEN
        shown := LOG.extension(t.number::int, substr(data, t.start + 1, t.size));
      ELSE
        shown := LOG.object(t.number::int, substr(data, t.start + 1, t.size));
      END IF;
    WHEN 'array' THEN SELECT * INTO shown, next FROM LOG.array_at(data, t.next, t.size, own);
    WHEN 'map' THEN SELECT * INTO shown, next FROM LOG.map_at(data, t.next, t.size, own);
  END CASE;
END $$;

CREATE OR REPLACE FUNCTION LOG.array_at(data bytea, at int, size int, own boolean, OUT shown text, OUT next int)
IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  items text[] := '{}';
  item record;
  mark int;
BEGIN
  next := at;
  IF own AND size > 0 THEN
    item := LOG.token(data, at);
    IF item.kind = 'ext' AND item.size = 0 THEN
      mark := item.number;
      next := item.next;
      size := size - 1;
    END IF;
  END IF;
  FOR i IN 1..size LOOP
    item := LOG.value_at(data, next, own);
    items := array_append(items, item.shown);
    next := item.next;
  END LOOP;
  shown := '[' || array_to_string(items, ', ') || ']';
  IF mark IN (1, 2, 3) THEN
    shown := '{"$type": "' || (ARRAY['tuple', 'set', 'frozenset'])[mark] || '", "$items": ' || shown || '}';
  ELSIF mark IS NOT NULL THEN
    shown := '{"$type": ' || items[1] || ', "value": ' || items[2]
      || CASE WHEN items[3] <> 'null' THEN ', "given": ' || items[3] ELSE '' END
      || CASE WHEN items[4] <> 'null' THEN ', "extra": ' || items[4] ELSE '' END
      || CASE WHEN items[5] <> 'null' THEN ', "private": ' || items[5] ELSE '' END || '}';
  END IF;
END $$;

CREATE OR REPLACE FUNCTION LOG.map_at(data bytea, at int, size int, own boolean, OUT shown text, OUT next int)
IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  keys text[] := '{}';
  items text[] := '{}';
  item record;
BEGIN
  next := at;
  FOR i IN 1..size LOOP
    item := LOG.value_at(data, next, own);
    keys := array_append(keys, item.shown);
    item := LOG.value_at(data, item.next, own);
    items := array_append(items, item.shown);
    next := item.next;
  END LOOP;
  shown := LOG.dict(keys, items);
END $$;

CREATE OR REPLACE FUNCTION LOG.dict(keys text[], items text[]) RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT CASE WHEN coalesce(bool_and(key LIKE '"%'), true)
    THEN '{' || coalesce(string_agg(key || ': ' || item, ', ' ORDER BY n), '') || '}'
    ELSE '{"$dict": [' || string_agg('[' || key || ', ' || item || ']', ', ' ORDER BY n) || ']}' END
  FROM unnest(keys, items) WITH ORDINALITY AS pair(key, item, n)
$$;
"""
"""Values of msgpack as JSON; `own` says that extensions are those of `codec`, not LangGraph's."""

_EXTENSIONS: Final = r"""
CREATE OR REPLACE FUNCTION LOG.extension(code int, data bytea) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  parts json;
  zone text := '';
BEGIN
  IF code IN (6, 8, 9, 15) THEN
    parts := (LOG.value_at(data, 0, true)).shown::json;
  END IF;
  IF code IN (6, 8) AND json_typeof(parts->2) = 'array' THEN
    zone := LOG.utc_offset((parts->2->>0)::bigint);
  END IF;
  RETURN CASE code
    WHEN 4 THEN LOG.big(data, true)::text
    WHEN 5 THEN LOG.b64(data)
    WHEN 6 THEN '{"$type": "datetime", "$iso": ' || to_json((parts->>0) || zone)::text || LOG.zone_name(parts->2) || '}'
    WHEN 7 THEN '{"$type": "date", "$iso": ' || LOG.string(data) || '}'
    WHEN 8 THEN '{"$type": "time", "$iso": ' || to_json((parts->>0) || zone)::text || LOG.zone_name(parts->2) || '}'
    WHEN 9 THEN '{"$type": "timedelta", "days": ' || (parts->>0) || ', "seconds": ' || (parts->>1)
      || ', "microseconds": ' || (parts->>2) || '}'
    WHEN 10 THEN '{"$type": "UUID", "value": "' || encode(data, 'hex')::uuid::text || '"}'
    WHEN 11 THEN '{"$type": "Decimal", "value": ' || LOG.string(data) || '}'
    WHEN 15 THEN '{"$type": "numpy:ndarray", "value": ' || (parts->3)::text || ', "dtype": ' || (parts->0)::text
      || ', "shape": ' || (parts->1)::text || ', "by_columns": ' || (parts->2)::text || '}'
    ELSE LOG.typed_bytes('extension ' || code, data)
  END;
END $$;

CREATE OR REPLACE FUNCTION LOG.zone_name(zone json) RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT CASE WHEN json_typeof(zone) = 'string' THEN ', "zone": ' || zone::text ELSE '' END
$$;

CREATE OR REPLACE FUNCTION LOG.utc_offset(microseconds bigint) RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT CASE WHEN microseconds < 0 THEN '-' ELSE '+' END || regexp_replace(regexp_replace(
    to_char(abs(microseconds) * interval '1 microsecond', 'HH24:MI:SS.US'), '[.]000000$', ''), '^(..:..):00$', '\1')
$$;

CREATE OR REPLACE FUNCTION LOG.object(code int, data bytea) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  inside json := (LOG.value_at(data, 0, false)).shown::json;
  fields text;
BEGIN
  IF code = 7 OR json_typeof(inside) <> 'array' OR json_array_length(inside) < 3 THEN
    RETURN '{"$type": "extension ' || code || '", "value": ' || inside::text || '}';
  ELSIF code IN (2, 4, 5) AND json_typeof(inside->2) = 'object' THEN
    SELECT string_agg(', ' || to_json(key)::text || ': ' || value::text, '' ORDER BY n) INTO fields
      FROM json_each(inside->2) WITH ORDINALITY AS field(key, value, n)
      WHERE value::text NOT IN ('null', '[]', '{}', '""');
    RETURN '{"$type": ' || (inside->1)::text || coalesce(fields, '') || '}';
  END IF;
  RETURN '{"$type": ' || to_json((inside->>0) || '.' || (inside->>1))::text
    || ', "value": ' || (inside->2)::text || '}';
END $$;
"""
"""What msgpack itself has no word for: the engine's extensions, and the objects of LangGraph's serializer."""

_CODECS: Final = r"""
CREATE OR REPLACE FUNCTION LOG.lengthened(data bytea) RETURNS bytea IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  phrases bytea[] := ARRAY[
    '\275langchain_core.messages.human\254HumanMessage\206\247content',
    '\272langchain_core.messages.ai\251AIMessage\211\247content',
    '\274langchain_core.messages.tool\253ToolMessage\211\247content',
    '\276langchain_core.messages.system\255SystemMessage\206\247content',
    '\261additional_kwargs\200\261response_metadata\200\244type\245human\244name\300\242id\331$',
    '\261additional_kwargs\200\261response_metadata\200\244type\242ai\244name\300\242id\331$',
    '\261additional_kwargs\200\261response_metadata\200\244type',
    '\252tool_calls\220\262invalid_tool_calls\220\256usage_metadata',
    '\262invalid_tool_calls\220\256usage_metadata',
    '\263model_validate_json'
  ]::bytea[];
  whole bytea := '';
  at int;
BEGIN
  LOOP
    at := position('\xc1'::bytea IN data);
    IF at = 0 THEN
      RETURN whole || data;
    END IF;
    whole := whole || substr(data, 1, at - 1) || phrases[get_byte(data, at) + 1];
    data := substr(data, at + 2);
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION LOG.tagged(data bytea, OUT tag text, OUT value bytea) IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  usual text[] := ARRAY['', 'msgpack', 'null', 'bytes', 'bytearray', 'json', 'msgpack+aes', 'bytes+aes', 'null+aes'];
  head int;
BEGIN
  IF get_byte(data, 0) > 127 THEN
    data := substr(data, get_byte(data, 0) - 126);
  END IF;
  head := CASE WHEN length(data) > 0 THEN get_byte(data, 0) ELSE 2 END;
  IF head = 15 THEN
    tag := 'msgpack';
    value := LOG.lengthened(substr(data, 2));
  ELSIF head < 16 THEN
    tag := coalesce(usual[head + 1], '?');
    value := substr(data, 2);
  ELSE
    tag := LOG.words(substr(data, 2, head - 16));
    value := substr(data, head - 14);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION LOG.shown(data bytea, codec text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  part record;
  text_of text;
BEGIN
  IF codec = 'msgpack/1' THEN
    RETURN (LOG.value_at(data, 0, true)).shown;
  ELSIF codec = 'json+/1' THEN
    text_of := convert_from(data, 'UTF8')::json::text;
    RETURN CASE WHEN position('\u0000' IN text_of) > 0 THEN LOG.typed_bytes(codec, data) ELSE text_of END;
  ELSIF codec IS DISTINCT FROM 'langgraph/1' THEN
    RETURN LOG.typed_bytes(coalesce(codec, '?'), data);
  END IF;
  part := LOG.tagged(data);
  RETURN CASE
    WHEN part.tag = 'null' THEN 'null'
    WHEN part.tag IN ('bytes', 'bytearray') THEN LOG.b64(part.value)
    WHEN part.tag IN ('', 'msgpack') THEN (LOG.value_at(part.value, 0, false)).shown
    ELSE LOG.typed_bytes(part.tag, part.value)
  END;
EXCEPTION WHEN OTHERS THEN
  RETURN LOG.typed_bytes(codec, data);
END $$;
"""
"""Bytes of a codec as JSON, whatever they are."""

_OPERATIONS: Final = r"""
CREATE OR REPLACE FUNCTION LOG.merge_at(data bytea, at int, codec text, OUT shown text, OUT next int)
IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  keys text[] := '{}';
  changes text[] := '{}';
  flat record;
  t record;
  code int;
BEGIN
  flat := LOG.token(data, at);
  next := flat.next;
  FOR i IN 1..flat.size / 3 LOOP
    t := LOG.token(data, next);
    IF t.kind = 'str' THEN
      keys := array_append(keys, LOG.string(substr(data, t.start + 1, t.size)));
    ELSE
      keys := array_append(keys, LOG.shown(substr(data, t.start + 1, t.size), codec));
    END IF;
    t := LOG.token(data, t.next);
    code := t.number;
    IF code = 3 THEN
      t := LOG.merge_at(data, t.next, codec);
      changes := array_append(changes, t.shown);
    ELSE
      t := LOG.token(data, t.next);
      changes := array_append(changes, LOG.operation(code, substr(data, t.start + 1, t.size), codec));
    END IF;
    next := t.next;
  END LOOP;
  shown := '{"$type": "Merge", "changes": ' || LOG.dict(keys, changes) || '}';
END $$;

CREATE OR REPLACE FUNCTION LOG.splice(data bytea, codec text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  flat record := LOG.token(data, 0);
  t record;
  items json := '[]';
  numbers int[];
  edits text[] := '{}';
  taken int := 0;
  at int := 0;
BEGIN
  t := LOG.token(data, flat.next);
  IF t.size > 0 THEN
    items := LOG.shown(substr(data, t.start + 1, t.size), codec)::json;
  END IF;
  FOR i IN 1..(flat.size - 1) / 3 LOOP
    numbers := '{}';
    FOR j IN 1..3 LOOP
      t := LOG.token(data, t.next);
      numbers := array_append(numbers, t.number::int);
    END LOOP;
    at := at + numbers[1];
    edits := array_append(edits, '[' || at || ', ' || numbers[2] || ', [' || coalesce((
      SELECT string_agg(item::text, ', ' ORDER BY n) FROM json_array_elements(items) WITH ORDINALITY AS each(item, n)
      WHERE n > taken AND n <= taken + numbers[3]), '') || ']]');
    at := at + numbers[2];
    taken := taken + numbers[3];
  END LOOP;
  RETURN '{"$type": "Splice", "edits": [' || array_to_string(edits, ', ') || ']}';
END $$;

CREATE OR REPLACE FUNCTION LOG.operation(code int, data bytea, codec text) RETURNS text
IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
  IF codec = 'langgraph/1' AND code <> 0 AND (LOG.tagged(data)).tag LIKE '+%' THEN
    RETURN LOG.typed_bytes((LOG.tagged(data)).tag, (LOG.tagged(data)).value);
  END IF;
  RETURN CASE
    WHEN code = 0 THEN '{"$type": "Delete"}'
    WHEN code IN (1, 4, 5, 6) THEN LOG.shown(data, codec)
    WHEN code = 2 THEN '{"$type": "Extend", "items": ' || LOG.shown(data, codec) || '}'
    WHEN code = 3 THEN (LOG.merge_at(data, 0, codec)).shown
    WHEN code = 7 THEN '{"$type": "AppendText", "text": ' || LOG.shown(data, codec) || '}'
    WHEN code = 8 THEN LOG.splice(data, codec)
    ELSE LOG.typed_bytes('operation ' || code, data)
  END;
EXCEPTION WHEN OTHERS THEN
  RETURN LOG.typed_bytes('operation ' || code, data);
END $$;
"""
"""What an event does to a channel, as JSON."""

_EVENTS: Final = r"""
CREATE OR REPLACE FUNCTION LOG.sealed(data bytea) RETURNS json IMMUTABLE LANGUAGE sql AS $$
  SELECT (LOG.value_at(substr(data, 10), 0, true)).shown::json
$$;

CREATE OR REPLACE FUNCTION LOG.run_name(parts json) RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT CASE WHEN json_array_length(parts) = 1 THEN parts->>0 ELSE parts::text END
$$;

CREATE OR REPLACE FUNCTION LOG.time_of(nanoseconds numeric) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$
  SELECT CASE WHEN abs(nanoseconds) < 9e21 THEN timestamptz '1970-01-01 00:00:00+00'
    + floor(nanoseconds / 1000)::float8 * interval '1 microsecond' END
$$;

CREATE OR REPLACE FUNCTION LOG.facts(
  key bytea, data bytea, OUT step bigint, OUT id text, OUT task text, OUT "time" timestamptz, OUT meta json,
  OUT count int, OUT first int
) IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  t record;
BEGIN
  data := data || ''::bytea;
  t := LOG.token(data, 33);
  count := (t.size - 5) / 3;
  t := LOG.token(data, t.next);
  IF t.kind = 'bin' THEN
    t.number := LOG.big(substr(data, t.start + 1, t.size), false);
  END IF;
  "time" := LOG.time_of(t.number);
  t := LOG.token(data, t.next);
  step := t.number;
  t := LOG.token(data, t.next);
  IF t.kind = 'str' THEN
    task := LOG.words(substr(data, t.start + 1, t.size));
  END IF;
  t := LOG.token(data, t.next);
  id := CASE t.kind
    WHEN 'str' THEN LOG.words(substr(data, t.start + 1, t.size))
    WHEN 'bin' THEN encode(substr(data, t.start + 1, t.size), 'hex')::uuid::text
    ELSE 'e' || LOG.uint(key, 9, 4) || '.' || LOG.uint(key, 13, 8) || '.' || encode(substr(data, 2, 4), 'hex')
  END;
  t := LOG.token(data, t.next);
  meta := CASE t.kind WHEN 'bin' THEN LOG.shown(substr(data, t.start + 1, t.size), 'msgpack/1') ELSE '{}' END::json;
  first := t.next;
END $$;

CREATE OR REPLACE FUNCTION LOG.changes(data bytea, count int, first int)
RETURNS TABLE (n int, channel text, code int, part int, payload bytea) ROWS 8 IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
  t record;
  at int := first;
  parts int := 0;
  slot bigint;
BEGIN
  data := data || ''::bytea;
  FOR i IN 1..count LOOP
    n := i;
    t := LOG.token(data, at);
    channel := LOG.words(substr(data, t.start + 1, t.size));
    t := LOG.token(data, t.next);
    slot := t.number;
    code := slot & 15;
    part := CASE WHEN slot & 16 <> 0 THEN parts END;
    parts := parts + (slot & 16 <> 0)::int;
    t := LOG.token(data, t.next);
    payload := substr(data, t.start + 1, t.size);
    at := t.next;
    RETURN NEXT;
  END LOOP;
END $$;
"""
"""Records as rows. A payload that stands in a part of its own is found by that part's number.

To add nothing to a value fetches it once; otherwise each look at a byte would fetch and decompress it.
"""

_VIEWS: Final = r"""
CREATE OR REPLACE VIEW LOG.segments AS
SELECT LOG.run_name(CASE WHEN o.value IS NULL THEN root->2->0 ELSE LOG.sealed(o.value)->2 END) AS run,
  own->>0 AS branch, root->2->>2 AS codec, substr(s.key, 2) AS place
FROM LOG.pairs s
JOIN LOG.pairs r ON r.key = substr(s.key, 1, 9) || '\x00000000'::bytea
CROSS JOIN LATERAL (SELECT LOG.sealed(s.value) AS own, LOG.sealed(r.value) AS root OFFSET 0) AS f
LEFT JOIN LOG.pairs o ON o.key = '\x4f'::bytea || substr(s.key, 2, 8)
  || CASE WHEN json_typeof(own->2->0) = 'number' THEN int4send((own->2->>0)::int) END
WHERE s.key >= '\x53'::bytea AND s.key < '\x54'::bytea AND json_array_length(root) > 0 AND json_array_length(own) > 0;

CREATE OR REPLACE VIEW LOG.writes AS
SELECT s.run, s.branch, f.step, f.id, f.task, f."time", w.channel,
  coalesce((ARRAY['delete', 'set', 'extend', 'merge', 'set', 'set', 'set', 'text', 'splice'])[w.code + 1], '?')
    AS operation,
  LOG.operation(w.code, CASE WHEN w.part IS NULL THEN w.payload ELSE (
      SELECT substr(p.value, 10) FROM LOG.pairs p WHERE p.key = '\x50'::bytea || substr(e.key, 2) || int4send(w.part)
    ) END, s.codec)::json AS value,
  e.key, w.n
FROM LOG.segments s
JOIN LOG.pairs e ON e.key >= '\x45'::bytea || s.place AND e.key < '\x45'::bytea || s.place || '\x80'::bytea
CROSS JOIN LATERAL LOG.facts(e.key, e.value) AS f
CROSS JOIN LATERAL LOG.changes(e.value, f.count, f.first) AS w;

CREATE OR REPLACE VIEW LOG.events AS
SELECT s.run, s.branch, f.step, f.id, f.task, f."time", f.meta, (
    SELECT coalesce(json_object_agg(w.channel, LOG.operation(
      w.code, CASE WHEN w.part IS NULL THEN w.payload ELSE (
        SELECT substr(p.value, 10) FROM LOG.pairs p WHERE p.key = '\x50'::bytea || substr(e.key, 2) || int4send(w.part)
      ) END, s.codec)::json ORDER BY w.n), '{}')
    FROM LOG.changes(e.value, f.count, f.first) AS w
  ) AS writes, e.key
FROM LOG.segments s
JOIN LOG.pairs e ON e.key >= '\x45'::bytea || s.place AND e.key < '\x45'::bytea || s.place || '\x80'::bytea
CROSS JOIN LATERAL LOG.facts(e.key, e.value) AS f;

CREATE OR REPLACE VIEW LOG.runs AS
SELECT LOG.run_name(f->0) AS run, LOG.time_of(LOG.big(decode(f->3->>'$b64', 'base64'), false)) AS created,
  LOG.sealed(r.value)->2->>2 AS codec
FROM LOG.pairs n
CROSS JOIN LATERAL (SELECT LOG.sealed(n.value) AS f OFFSET 0) AS listing
LEFT JOIN LOG.pairs r ON r.key = '\x53'::bytea || int8send(CASE WHEN (f->>2)::numeric < 9223372036854775808
  THEN (f->>2)::numeric ELSE (f->>2)::numeric - 18446744073709551616 END::bigint) || '\x00000000'::bytea
WHERE n.key >= '\x4e'::bytea AND n.key < '\x4f'::bytea AND (f->>4)::boolean;
"""
"""What is read once is kept from being read for each of its uses by ``OFFSET 0``."""
