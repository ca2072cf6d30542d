"""The one narrow entrance for hosts: the functions that they may call at the centre, as SQL.

They run as `so1_owner`, which is no superuser, with a search path that no caller can change, and
name everything with its schema. Each begins with the installation's secret, and none gives back
more than an installation's own cursors.
"""

from __future__ import annotations

from agent.fleet.streams import ALL_STREAMS, Stream

MAX_ROWS = 5000
"""Of one call. A host's rows beyond it come with the next."""
MAX_TEXT = 1024
"""Characters of one value; longer ones are cut."""

DEFINER = "SECURITY DEFINER SET search_path = pg_catalog, pg_temp"

# The secret is random and 256 bits long, so that a plain hash keeps it.
_CHECK = f"""
    CREATE FUNCTION so1.check_secret(wanted text, secret text) RETURNS void
    LANGUAGE plpgsql {DEFINER} AS $body$
    BEGIN
        PERFORM 1 FROM so1.installations i
        WHERE i.installation = wanted
            AND i.secret_hash = pg_catalog.sha256(pg_catalog.convert_to(secret, 'UTF8'));
        IF NOT FOUND THEN
            RAISE EXCEPTION 'this installation or its secret is not known here'
                USING ERRCODE = 'invalid_authorization_specification';
        END IF;
    END
    $body$
"""

_BEGIN = f"""
    CREATE FUNCTION so1_api.begin_epoch(
        p_installation text, p_secret text, p_epoch uuid, p_before uuid, p_reason text,
        p_version text, p_streams text[], p_ids bigint[], p_timestamps bigint[]
    ) RETURNS void
    LANGUAGE plpgsql {DEFINER} AS $body$
    BEGIN
        PERFORM so1.check_secret(p_installation, p_secret);
        IF p_reason NOT IN ('first', 'fork', 'begun again') THEN
            RAISE EXCEPTION 'no such reason' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF (SELECT pg_catalog.count(*) FROM so1.epochs e WHERE e.installation = p_installation
                AND e.began_at > pg_catalog.clock_timestamp() - interval '1 day') >= 100 THEN
            RAISE EXCEPTION 'too many epochs of this installation within a day'
                USING ERRCODE = 'configuration_limit_exceeded';
        END IF;
        INSERT INTO so1.epochs (installation, epoch, reason, before)
        VALUES (p_installation, p_epoch, p_reason, p_before) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        INSERT INTO so1.cursors (installation, epoch, stream, last_id, last_timestamp)
        SELECT p_installation, p_epoch, r.stream,
            COALESCE(c.id, 0), COALESCE(c.at, 0)
        FROM so1.ranges r
        LEFT JOIN ROWS FROM (
            pg_catalog.unnest(p_streams), pg_catalog.unnest(p_ids), pg_catalog.unnest(p_timestamps)
        ) AS c(stream, id, at) ON c.stream = r.stream;
        UPDATE so1.installations i SET seen_at = pg_catalog.clock_timestamp(),
            version = pg_catalog.left(p_version, 64)
        WHERE i.installation = p_installation;
    END
    $body$
"""

_CURSORS = f"""
    CREATE FUNCTION so1_api.cursors(
        p_installation text, p_secret text, p_epoch uuid, p_version text
    ) RETURNS TABLE (epoch uuid, stream text, last_id bigint, last_timestamp bigint)
    LANGUAGE plpgsql {DEFINER} AS $body$
    BEGIN
        PERFORM so1.check_secret(p_installation, p_secret);
        UPDATE so1.installations i SET seen_at = pg_catalog.clock_timestamp(),
            version = pg_catalog.left(p_version, 64)
        WHERE i.installation = p_installation;
        -- A host that has lost its own state goes on with its newest epoch, if its rows are in it.
        IF p_epoch IS NULL THEN
            SELECT e.epoch INTO p_epoch FROM so1.epochs e
            WHERE e.installation = p_installation ORDER BY e.began_at DESC, e.epoch LIMIT 1;
        END IF;
        RETURN QUERY SELECT c.epoch, c.stream, c.last_id, c.last_timestamp FROM so1.cursors c
        WHERE c.installation = p_installation AND c.epoch = p_epoch;
    END
    $body$
"""

# Where an old copy of a host's history parted from the one that is here.
_HOLDS = f"""
    CREATE FUNCTION so1_api.holds(
        p_installation text, p_secret text, p_epoch uuid,
        p_stream text, p_id bigint, p_timestamp bigint
    ) RETURNS boolean
    LANGUAGE plpgsql {DEFINER} AS $body$
    DECLARE
        found boolean := false;
    BEGIN
        PERFORM so1.check_secret(p_installation, p_secret);
        IF NOT EXISTS (SELECT 1 FROM so1.ranges r WHERE r.stream = p_stream) THEN
            RETURN false;
        END IF;
        EXECUTE pg_catalog.format(
            'SELECT EXISTS (SELECT 1 FROM so1.%I WHERE installation = $1 AND epoch = $2'
            ' AND id = $3 AND timestamp = $4)', p_stream)
        INTO found USING p_installation, p_epoch, p_id, p_timestamp;
        RETURN found OR EXISTS (
            SELECT 1 FROM so1.out_of_range o WHERE o.installation = p_installation
                AND o.epoch = p_epoch AND o.stream = p_stream
                AND o.id = p_id AND o.timestamp = p_timestamp);
    END
    $body$
"""


def statements() -> list[str]:
    """All functions, in order."""
    return [_CHECK, _BEGIN, _CURSORS, _HOLDS, *(ingest(stream) for stream in ALL_STREAMS)]


def ingest(stream: Stream) -> str:
    """The function that takes a host's rows of one stream, all or none of them.

    It moves the cursor from exactly where the host says that it is, in the rows' own transaction:
    what comes twice is known by its end, and what comes from elsewhere moves nothing.
    """
    parameters = ", ".join(f"p_{one.name} {one.type}[] DEFAULT NULL" for one in stream.columns)
    names = ", ".join(one.name for one in stream.columns)
    unnested = ", ".join(f"pg_catalog.unnest(p_{one.name})" for one in stream.columns)
    values = ", ".join(
        f"pg_catalog.left(r.{one.name}, {MAX_TEXT})" if one.type == "text" else f"r.{one.name}"
        for one in stream.columns
    )
    name = f"'{stream.name}'"
    lengths = " OR ".join(f"pg_catalog.cardinality(p_{one.name}) <> n" for one in stream.columns)
    # A host that begins to ship what it was not asked for before has lost nothing.
    begun = " AND r.before > 0" if stream.option else ""
    source = f"""ROWS FROM (
                pg_catalog.unnest(p_ids), pg_catalog.unnest(p_timestamps), {unnested}
            ) AS r(id, timestamp, {names})"""
    return f"""
    CREATE FUNCTION so1_api.ingest_{stream.name}(
        p_installation text, p_secret text, p_epoch uuid,
        p_last_id bigint, p_last_timestamp bigint,
        p_ids bigint[], p_timestamps bigint[], {parameters},
        OUT outcome text, OUT last_id bigint, OUT last_timestamp bigint
    )
    LANGUAGE plpgsql {DEFINER} AS $body$
    DECLARE
        n integer := pg_catalog.cardinality(p_ids);
        now_ms bigint := (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint;
        span record;
    BEGIN
        PERFORM so1.check_secret(p_installation, p_secret);
        IF n IS NULL OR n NOT BETWEEN 1 AND {MAX_ROWS} OR pg_catalog.array_ndims(p_ids) <> 1
            OR pg_catalog.cardinality(p_timestamps) IS DISTINCT FROM n
            OR {lengths}
        THEN
            RAISE EXCEPTION 'the arrays are not 1 to {MAX_ROWS} rows of one length'
                USING ERRCODE = 'array_subscript_error';
        END IF;
        SELECT c.last_id, c.last_timestamp INTO last_id, last_timestamp FROM so1.cursors c
        WHERE c.installation = p_installation AND c.epoch = p_epoch AND c.stream = {name}
        FOR UPDATE;
        IF NOT FOUND THEN
            outcome := 'unknown';
            RETURN;
        END IF;
        IF last_id = p_ids[n] AND last_timestamp = p_timestamps[n] THEN
            outcome := 'again';
            RETURN;
        END IF;
        IF last_id <> p_last_id OR last_timestamp <> p_last_timestamp THEN
            outcome := 'fork';
            RETURN;
        END IF;
        IF EXISTS (
            SELECT 1 FROM (
                SELECT r.id, pg_catalog.lag(r.id, 1, p_last_id) OVER (ORDER BY r.place) AS before
                FROM pg_catalog.unnest(p_ids) WITH ORDINALITY AS r(id, place)
            ) AS r WHERE r.id IS NULL OR r.id <= r.before
        ) OR EXISTS (SELECT 1 FROM pg_catalog.unnest(p_timestamps) AS r(at) WHERE r.at IS NULL) THEN
            RAISE EXCEPTION 'the ids do not rise' USING ERRCODE = 'array_subscript_error';
        END IF;
        SELECT r.first_ms, r.end_ms INTO span FROM so1.ranges r WHERE r.stream = {name};
        IF span.end_ms < now_ms + 86400000 THEN
            PERFORM so1.extend(now_ms);
            SELECT r.first_ms, r.end_ms INTO span FROM so1.ranges r WHERE r.stream = {name};
        END IF;
        INSERT INTO so1.{stream.name} (installation, epoch, id, timestamp, {names})
        SELECT p_installation, p_epoch, r.id, r.timestamp, {values} FROM {source}
        WHERE r.timestamp >= span.first_ms AND r.timestamp < span.end_ms;
        INSERT INTO so1.out_of_range (installation, epoch, stream, id, timestamp, content)
        SELECT p_installation, p_epoch, {name}, r.id, r.timestamp, pg_catalog.to_jsonb(r)
        FROM {source}
        WHERE r.timestamp < span.first_ms OR r.timestamp >= span.end_ms;
        INSERT INTO so1.gaps
            (installation, epoch, stream, first_id, last_id, after_timestamp, before_timestamp)
        SELECT p_installation, p_epoch, {name}, r.before + 1, r.id - 1,
            r.before_timestamp, r.timestamp
        FROM (
            SELECT r.id, r.timestamp,
                pg_catalog.lag(r.id, 1, p_last_id) OVER (ORDER BY r.id) AS before,
                pg_catalog.lag(r.timestamp, 1, p_last_timestamp) OVER (ORDER BY r.id)
                    AS before_timestamp
            FROM ROWS FROM (pg_catalog.unnest(p_ids), pg_catalog.unnest(p_timestamps))
                AS r(id, timestamp)
        ) AS r WHERE r.id > r.before + 1{begun};
        last_id := p_ids[n];
        last_timestamp := p_timestamps[n];
        UPDATE so1.cursors c SET last_id = p_ids[n], last_timestamp = p_timestamps[n],
            moved_at = pg_catalog.clock_timestamp()
        WHERE c.installation = p_installation AND c.epoch = p_epoch AND c.stream = {name};
        outcome := 'taken';
    END
    $body$
    """
