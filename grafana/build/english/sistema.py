"""«Monitor de Sistema» in English."""

from __future__ import annotations

SISTEMA = {
    "Monitor de Sistema": "System Monitor",
    "Abre «Monitor de Sistema» con el mismo rango": "Opens “System Monitor” with the same range",
    "RAM, CPU, procesos y contenedores del equipo, y si se puede creer lo que dice el agente.": (
        "RAM, CPU, processes and containers of the host, and whether to believe the agent."
    ),
    "Procesos del último tick, los mayores primero": (
        "Processes of the last tick, the largest first"
    ),
    "Uso de CPU del equipo en el último tick: porcentaje de todas las CPU sobre el último "
    "intervalo, de /proc/stat.": (
        "The host's CPU use at the last tick: percent of all CPUs over the last interval, from "
        "/proc/stat."
    ),
    "RAM Usada": "RAM Used",
    "«Usada» es total menos libre, como en el original, e incluye la caché del kernel. "
    "«Comprometida» es total menos disponible: lo que no se puede dar a un programa nuevo, y lo "
    "que importa para saber si falta RAM.": (
        "“Used” is total minus free, as in the original, and includes the kernel's cache. "
        "“Committed” is total minus available: what cannot be given to a new program, and what "
        "matters for whether RAM is short."
    ),
    "RAM Ahora": "RAM Now",
    "Memoria del equipo en el último tick, en KiB de /proc/meminfo: total = usada + libre; "
    "disponible es la estimación del kernel (MemAvailable).": (
        "The host's memory at the last tick, in KiB of /proc/meminfo: total = used + free; "
        "available is the kernel's estimate (MemAvailable)."
    ),
    "Contenedores y Procesos": "Containers and Processes",
    "Contenedores en marcha sin contar Grafana, después de las eliminaciones del tick, y "
    "procesos del equipo, hilos del kernel incluidos. Vacío: Docker no respondió.": (
        "Running containers without Grafana, after the tick's removals, and the host's "
        "processes, kernel threads included. Empty: Docker did not answer."
    ),
    "Eliminaciones conseguidas: en el rango elegido y en toda la historia guardada (suma de "
    "deleted_count).": (
        "Removals that succeeded: in the chosen range and in all the history that is kept (sum "
        "of deleted_count)."
    ),
    "Último Tick": "Last Tick",
    "Último tick": "Last tick",
    "Edad del último tick al final del rango y de dónde se leyeron los procesos: de los módulos "
    "del kernel o, si no cargaron, de psutil. Rojo: faltan más de seis ticks, al ritmo de los "
    "últimos.": (
        "Age of the last tick at the range's end and where the processes were read from: the "
        "kernel modules or, where those did not load, psutil. Red: more than six ticks are "
        "missing, at the rhythm of the last ones."
    ),
    "Uso de RAM en el Tiempo": "RAM Use over Time",
    "RAM usada y libre, apiladas hasta el total, y la disponible como línea. Cada punto es la "
    "media de los ticks de su intervalo; una interrupción es tiempo sin ticks.": (
        "RAM used and free, stacked up to the total, and the available as a line. Each point is "
        "the mean of its interval's ticks; a break is time without ticks."
    ),
    "Uso de CPU en el Tiempo": "CPU Use over Time",
    "Porcentaje de todas las CPU: la media de los ticks de cada intervalo y el peor de ellos.": (
        "Percent of all CPUs: the mean of each interval's ticks and the worst of them."
    ),
    "Procesos y Contenedores en el Tiempo": "Processes and Containers over Time",
    "Procesos del equipo (eje izquierdo) y contenedores en marcha tras las eliminaciones (eje "
    "derecho). Sin línea de contenedores: Docker no respondió.": (
        "The host's processes (left axis) and running containers after the removals (right "
        "axis). No line of containers: Docker did not answer."
    ),
    "Contenedores Eliminados en el Tiempo": "Containers Removed over Time",
    "Eliminaciones conseguidas en cada intervalo (suma de deleted_count). Un intervalo con ticks "
    "y sin eliminaciones vale 0; sin ticks no hay barra.": (
        "Removals that succeeded in each interval (sum of deleted_count). An interval with ticks "
        "and without removals is 0; without ticks there is no bar."
    ),
    "Carga y Presión": "Load and Pressure",
    "Carga media de 1 minuto contra el número de CPU (eje izquierdo), y presión (PSI, «some», "
    "media de 10 s): el tiempo en que algo esperó por CPU o por memoria (eje derecho). Sin "
    "línea: el kernel no publica PSI.": (
        "Load average of 1 minute against the number of CPUs (left axis), and pressure (PSI, "
        "“some”, average of 10 s): the time in which something waited for CPU or for memory "
        "(right axis). No line: the kernel publishes no PSI."
    ),
    "Top $top Procesos por RAM": "Top $top Processes by RAM",
    "Los procesos con más memoria residente exacta (RSS) en el último tick. 1 MiB = 1024 KiB.": (
        "The processes with the most exact resident memory (RSS) at the last tick. 1 MiB = 1024 "
        "KiB."
    ),
    "Top $top Procesos por CPU": "Top $top Processes by CPU",
    "Los procesos con más CPU sobre el último intervalo; 100 % es una CPU entera.": (
        "The processes with the most CPU over the last interval; 100 % is one whole CPU."
    ),
    "Procesos más Activos": "Most Active Processes",
    "CPU media en todo el rango (100 % es una CPU), sobre hasta 60 ticks repartidos por él; un "
    "proceso cuenta 0 en los ticks en que no existía. Más de 6 h se leen por tramos, con los 20 "
    "procesos mayores de cada uno.": (
        "Mean CPU over the whole range (100 % is one CPU), of up to 60 ticks spread over it; a "
        "process counts 0 at ticks where it did not exist. More than 6 h are read from buckets, "
        "with the 20 largest processes of each."
    ),
    "RAM de los Procesos en el Tiempo": "RAM of Processes over Time",
    "Memoria residente (RSS) de los procesos elegidos arriba; con «All», los $top mayores del "
    "rango. Hasta 120 ticks repartidos por el rango; más de 6 h se leen por tramos, con los 20 "
    "procesos mayores de cada uno.": (
        "Resident memory (RSS) of the processes chosen above; with “All”, the $top largest of "
        "the range. Up to 120 ticks spread over the range; more than 6 h are read from buckets, "
        "with the 20 largest processes of each."
    ),
    "CPU de los Procesos en el Tiempo": "CPU of Processes over Time",
    "CPU de los procesos elegidos arriba sobre cada intervalo del agente; 100 % es una CPU. Con "
    "«All», los $top que más gastaron en el rango.": (
        "CPU of the processes chosen above over each interval of the agent; 100 % is one CPU. "
        "With “All”, the $top that used most in the range."
    ),
    "¿Se puede creer?": "Can it be believed?",
    "Atribución Ahora": "Attribution Now",
    "Verificación en el Tiempo": "Verification over Time",
    "Procesos de contenedores por veredicto: media de cada intervalo, salvo los conflictos, de "
    "los que se muestra el peor tick para que ninguno se pierda.": (
        "Containers' processes by verdict: the mean of each interval, except conflicts, of which "
        "the worst tick is shown so that none is missed."
    ),
    "Casos Especiales en el Tiempo": "Special Cases over Time",
    "Peor tick de cada intervalo: procesos en el cgroup de un contenedor con los espacios de "
    "nombres del equipo (añadidos), fuera de todo cgroup de contenedor pero en su espacio de PID "
    "(extraviados), o con cgroup de uno y espacios de otro (movidos). Eventos de BPF perdidos: "
    "su suma.": (
        "Worst tick of each interval: processes in a container's cgroup with the host's "
        "namespaces (added), outside every container's cgroup but in its PID namespace "
        "(escaped), or with the cgroup of one and the namespaces of another (moved). BPF events "
        "lost: their sum."
    ),
    "Fuente en el Tiempo": "Source over Time",
    "De dónde vinieron los datos: módulos del kernel, psutil (módulos no disponibles) o ningún "
    "sitio (el agente no corría).": (
        "Where the data came from: kernel modules, psutil (modules unavailable) or nowhere (the "
        "agent did not run)."
    ),
    "Duración de los Ticks": "Duration of Ticks",
    "Lo que tarda un tick en leer, decidir, eliminar y guardar: media y máximo de cada "
    "intervalo. Los ticks que eliminan esperan unos segundos a que los contenedores terminen.": (
        "What a tick takes to read, decide, remove and store: mean and maximum of each interval. "
        "Ticks that remove wait some seconds for the containers to end."
    ),
    "Política": "Policy",
    "armada": "armed",
    "desarmada": "disarmed",
    "Perdidos": "Lost",
    "Omitidos": "Missed",
    "Corregidos": "Corrected",
    "Tardíos": "Late",
    "Registro de BPF en el Rango": "BPF's Record in the Range",
    "Procesos de contenedores según los dos testigos, el módulo y BPF: coinciden, están en "
    "conflicto (fuera de los totales y su contenedor no se elimina), o BPF no los vio. La "
    "política está desarmada, y no toca nada, mientras un presupuesto de confianza está gastado "
    "o alguien lo quiso así (`agent policy disarm`).": (
        "Processes of containers by the two witnesses, the module and BPF: they agree, they "
        "conflict (left out of the totals, and their container is not removed), or BPF did not "
        "see them. The policy is disarmed, and touches nothing, while a budget of trust is spent "
        "or somebody wanted it so (`agent policy disarm`)."
    ),
    "De los ticks del rango: eventos perdidos (con las ejecuciones que el kernel omitió), "
    "procesos que estaban en otro cgroup que el de su historia, y finales que se supieron tarde. "
    "Solo los perdidos y los omitidos son pérdidas.": (
        "Of the range's ticks: events that were lost (with the runs that the kernel missed), "
        "processes that were in another cgroup than their history's, and ends that became known "
        "late. Only lost and missed ones are losses."
    ),
}
