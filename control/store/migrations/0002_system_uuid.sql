-- A machine that boots from an interface nobody has seen is known by its system's UUID. Not unique: some vendors repeat it.
ALTER TABLE inventory ADD COLUMN system_uuid TEXT;
CREATE INDEX inventory_system_uuid ON inventory (system_uuid, machine) WHERE system_uuid IS NOT NULL;
